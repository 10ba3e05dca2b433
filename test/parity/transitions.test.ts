// Every move that a state forbids, one after the other: what it is answered, and that nothing has changed by it.
import { scenarios } from './parity.ts';
import { IDLE, TICK, type Stage } from './stage.ts';

const pause = (stage: Stage, name: string) =>
  stage.call('pause', stage.api.tasks.pause({ containerId: name }));
const resume = (stage: Stage, name: string) =>
  stage.call('resume', stage.api.tasks.resume({ containerId: name }));

/** What can be asked in every state, and harms in none. */
async function questions(stage: Stage, name: string, execId = ''): Promise<void> {
  await stage.state(name, execId);
  await stage.resize(name, execId, 80, 24);
  await stage.closeIO(name, execId);
}

const exec = (stage: Stage, name: string, execId: string) => stage.addExec(name, execId, ['sleep', '600']);

scenarios('forbidden moves', {
  'of a created task': async (stage) => {
    const name = await stage.created(IDLE);
    await stage.task(name);
    await stage.task(name);
    await pause(stage, name);
    await resume(stage, name);
    await stage.checkpoint(name, false);
    await questions(stage, name);
    await stage.kill(name, 9, { execId: 'none' });
    await stage.start(name, 'none');
    await stage.deleteExec(name, 'none');
    await stage.start(name);
    await stage.end(name);
  },
  'of a running task': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.task(name);
    await stage.start(name);
    await resume(stage, name);
    await stage.delete(name);
    await questions(stage, name);
    await questions(stage, name, 'none');
    await stage.end(name);
  },
  'of a paused task': async (stage) => {
    const name = await stage.detached(IDLE);
    await pause(stage, name);
    await stage.task(name);
    await stage.start(name);
    await pause(stage, name);
    await stage.delete(name);
    await exec(stage, name, 'e');
    await questions(stage, name);
    await resume(stage, name);
    await exec(stage, name, 'e');
    await stage.deleteExec(name, 'e');
    await stage.end(name);
  },
  'of a stopped task': async (stage) => {
    const name = await stage.detached(TICK);
    await stage.end(name);
    await stage.task(name);
    await stage.start(name);
    await pause(stage, name);
    await resume(stage, name);
    await stage.checkpoint(name, false);
    await exec(stage, name, 'e');
    await stage.start(name, 'e');
    await stage.kill(name, 9);
    await questions(stage, name);
    await stage.delete(name);
  },
  'of a deleted task': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.end(name);
    await stage.delete(name);
    await stage.start(name);
    await pause(stage, name);
    await resume(stage, name);
    await stage.update(name, { pids: { limit: 50 } });
    await stage.checkpoint(name, false);
    await exec(stage, name, 'e');
    await stage.kill(name, 9);
    await stage.delete(name);
    await stage.wait(name);
    await questions(stage, name);
  },
  'of an exec that was added': async (stage) => {
    const name = await stage.detached(IDLE);
    await exec(stage, name, 'e');
    await exec(stage, name, 'e');
    await stage.kill(name, 9, { execId: 'e' });
    await questions(stage, name, 'e');
    await stage.deleteExec(name, 'e');
    await stage.deleteExec(name, 'e');
    await stage.start(name, 'e');
    await stage.end(name);
  },
  'of an exec that runs': async (stage) => {
    const name = await stage.detached(IDLE);
    await exec(stage, name, 'e');
    await stage.start(name, 'e');
    await exec(stage, name, 'e');
    await stage.deleteExec(name, 'e');
    await questions(stage, name, 'e');
    const ended = stage.wait(name, 'e');
    await stage.kill(name, 9, { execId: 'e' });
    await ended;
    await stage.deleteExec(name, 'e');
    await stage.end(name);
  },
  'of an exec that has ended': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'e', ['true']);
    const ended = stage.wait(name, 'e');
    await stage.start(name, 'e');
    await ended;
    await exec(stage, name, 'e');
    await stage.kill(name, 9, { execId: 'e' });
    await questions(stage, name, 'e');
    await stage.deleteExec(name, 'e');
    await stage.kill(name, 9, { execId: 'e' });
    await stage.wait(name, 'e');
    await questions(stage, name, 'e');
    await stage.end(name);
  },
});
