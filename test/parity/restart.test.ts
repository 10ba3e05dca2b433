// containerd goes away and comes back while tasks run.
import { dev } from '../system/support/stack.ts';
import { scenarios, theHouse } from './parity.ts';
import { IDLE } from './stage.ts';

const restart = async (): Promise<void> => {
  await dev('restart', 'containerd');
  await theHouse().recorder.listen();
};

scenarios(
  'restart of containerd',
  {
    'tasks in each state': {
      withoutEvents: true,
      play: async (stage) => {
        const running = await stage.detached(IDLE);
        const paused = await stage.detached(IDLE);
        await stage.ctr('tasks', 'pause', paused);
        const fresh = await stage.created(IDLE);
        await stage.task(fresh);
        await stage.addExec(running, 'e', ['/bin/sh', '-c', 'exit 5']);
        await restart();
        for (const name of [running, paused, fresh]) {
          await stage.state(name);
          await stage.shape(name);
        }
        await stage.state(running, 'e');
        await stage.start(running, 'e');
        await stage.wait(running, 'e');
        await stage.exec(running, 'f', 'echo out; exit 4');
        await stage.ctr('tasks', 'resume', paused);
        await stage.start(fresh);
        for (const name of [running, paused, fresh]) await stage.end(name);
      },
    },
    'an end while it is away': {
      withoutEvents: true,
      play: async (stage) => {
        const name = await stage.detached('sleep 1; exit 7');
        await dev('stop', 'containerd');
        await stage.pause(1200);
        await dev('start', 'containerd');
        await theHouse().recorder.listen();
        await stage.state(name);
        await stage.wait(name);
        await stage.ctr('tasks', 'rm', name);
      },
    },
  },
  1,
);
