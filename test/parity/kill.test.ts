// Signals, the task's states, and what is refused in each.
import { scenarios } from './parity.ts';
import { IDLE, LOOP, type Stage } from './stage.ts';

const TRAP = (signal: string): string => `trap "exit 42" ${signal}; touch /ready; ${LOOP}`;

async function verbs(stage: Stage, name: string): Promise<void> {
  await stage.state(name);
  await stage.call('pause', stage.api.tasks.pause({ containerId: name }));
  await stage.call('resume', stage.api.tasks.resume({ containerId: name }));
  await stage.call('pids', stage.api.tasks.listPids({ containerId: name }));
  await stage.update(name, { pids: { limit: 50 } });
  await stage.metrics(name);
}

scenarios('kill and states', {
  'signals that are caught': async (stage) => {
    for (const signal of ['HUP', 'USR1', 'TERM']) {
      const name = await stage.detached(TRAP(signal));
      await stage.ready(name);
      const ended = stage.wait(name);
      await stage.ctr('tasks', 'kill', '-s', `SIG${signal}`, name);
      await ended;
      await stage.ctr('tasks', 'rm', name);
    }
  },
  'a signal that process 1 does not hear': async (stage) => {
    // Before its exec the OCI runtime stands in its place, and hears.
    const name = await stage.detached(`touch /ready; ${IDLE}`);
    await stage.ready(name);
    await stage.ctr('tasks', 'kill', name);
    await stage.pause(200);
    await stage.state(name);
    await stage.end(name);
  },
  'signal 0': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.kill(name, 0);
    await stage.end(name);
    await stage.kill(name, 0);
  },
  'unknown signals': async (stage) => {
    const name = await stage.detached(IDLE);
    for (const signal of [64, 65, 99, 4000, 4_294_967_295]) await stage.kill(name, signal);
    await stage.ctr('tasks', 'kill', '-s', 'SIGNONE', name);
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.start(name, 'e');
    await stage.kill(name, 99, { execId: 'e' });
    await stage.state(name);
    await stage.end(name);
  },
  'kill twice': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.end(name);
    await stage.kill(name, 9);
    await stage.kill(name, 15, { all: true });
    await stage.ctr('tasks', 'kill', name);
    await stage.ctr('tasks', 'rm', name);
    await stage.kill(name, 9);
  },
  'kill an exec, and again': async (stage) => {
    const name = await stage.detached(IDLE);
    for (const signal of [15, 9]) {
      await stage.addExec(name, 'e', ['sleep', '600']);
      await stage.start(name, 'e');
      await stage.kill(name, signal, { execId: 'e' });
      await stage.wait(name, 'e');
      await stage.kill(name, signal, { execId: 'e' });
      await stage.deleteExec(name, 'e');
    }
    await stage.end(name);
  },
  'kill all': async (stage) => {
    const name = await stage.detached(`trap "" TERM; sleep 600 & touch /ready; ${IDLE}`);
    await stage.ready(name);
    await stage.kill(name, 15, { all: true });
    await stage.pause(100);
    await stage.state(name);
    const ended = stage.wait(name);
    await stage.kill(name, 9, { all: true });
    await ended;
  },
  'delete while it runs': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.delete(name);
    await stage.ctr('tasks', 'rm', name);
    await stage.ctr('containers', 'rm', name);
    await stage.state(name);
    await stage.end(name);
    await stage.delete(name);
    await stage.delete(name);
  },
  'start twice': async (stage) => {
    const name = await stage.created(IDLE);
    await stage.task(name);
    await stage.start(name);
    await stage.start(name);
    await stage.end(name);
    await stage.start(name);
  },
  'a task that never starts': async (stage) => {
    const name = await stage.created(IDLE);
    await stage.task(name);
    await stage.shape(name);
    await verbs(stage, name);
    await stage.delete(name);
  },
  'kill before the start': async (stage) => {
    const name = await stage.created(IDLE);
    await stage.task(name);
    const ended = stage.wait(name);
    await stage.kill(name, 9);
    await ended;
    await stage.start(name);
    await stage.delete(name);
  },
  'waiting before the start and after the end': async (stage) => {
    const name = await stage.created('exit 9');
    await stage.task(name);
    const early = stage.wait(name);
    await stage.pause(100);
    await stage.start(name);
    await early;
    await stage.wait(name);
    await stage.delete(name);
    await stage.wait(name);
  },
  'all verbs while it runs': async (stage) => {
    const name = await stage.detached(IDLE);
    await verbs(stage, name);
    await stage.end(name);
  },
  'all verbs after its end': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.end(name);
    await verbs(stage, name);
    await stage.shape(name);
  },
  'all verbs without a task': async (stage) => {
    const name = await stage.created(IDLE);
    await verbs(stage, name);
    await stage.kill(name, 9);
    await stage.delete(name);
  },
  'pause and resume': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.ctr('tasks', 'pause', name);
    await stage.shape(name);
    await stage.ctr('tasks', 'pause', name);
    await stage.delete(name);
    await stage.start(name);
    await stage.ctr('tasks', 'resume', name);
    await stage.ctr('tasks', 'resume', name);
    await stage.shape(name);
    await stage.end(name);
  },
  'kill while paused': {
    runcAlone: 'crun leaves what it killed frozen, and theirs waits for its end',
    play: async (stage) => {
      const name = await stage.detached(IDLE);
      await stage.ctr('tasks', 'pause', name);
      await stage.end(name);
      await stage.state(name);
      await stage.ctr('tasks', 'resume', name);
      await stage.ctr('tasks', 'rm', name);
    },
  },
  'a signal to an exec while paused': {
    // It ends when it is let go, which may be noticed before or after the resume is reported.
    unordered: true,
    play: async (stage) => {
      const name = await stage.detached(IDLE);
      await stage.addExec(name, 'e', ['sleep', '600']);
      await stage.start(name, 'e');
      await stage.ctr('tasks', 'pause', name);
      await stage.kill(name, 15, { execId: 'e' });
      await stage.ctr('tasks', 'resume', name);
      await stage.wait(name, 'e');
      await stage.end(name);
    },
  },
});
