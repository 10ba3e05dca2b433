import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { suite, test, type TestContext } from 'node:test';
import { hangs, Heartbeat } from '../../../../shim/guard/heartbeat.ts';

const look = (at: number, usedMs: number, isStopped = false) => ({
  at,
  usedMs,
  isStopped,
  isIdle: isStopped,
});

/** Until it is said that the process hangs. @param answers whether it answers */
async function hung(t: TestContext, pid: number, answers: boolean): Promise<string> {
  const said = Promise.withResolvers<string>();
  const heartbeat: Heartbeat = new Heartbeat(
    pid,
    () => answers && setImmediate(() => heartbeat.answered()),
    said.resolve,
  );
  heartbeat.start();
  t.after(() => heartbeat.stop());
  const none = new Promise<string>((resolve) => setTimeout(resolve, 1400, 'nothing').unref());
  return Promise.race([said.promise, none]);
}

function sleeper(t: TestContext): number {
  const child = spawn('sleep', ['600']);
  t.after(() => child.kill('SIGKILL'));
  return child.pid ?? assert.fail('sleep does not start');
}

suite('whether a worker that does not answer will ever', () => {
  test('not one that stands still at two looks in a row', () => {
    assert.match(hangs(look(0, 50), look(0, 50, true), look(250, 50, true)) ?? '', /stopped/);
    assert.equal(hangs(look(0, 50), look(0, 50), look(250, 50, true)), undefined);
  });

  test('nor one that has used a processor for a second, but one that is given less than it could use', () => {
    assert.match(hangs(look(0, 50), look(750, 0), look(1000, 1040)) ?? '', /1\.0 s/);
    assert.equal(hangs(look(0, 50), look(500, 0), look(750, 800)), undefined, 'not long enough');
    assert.equal(hangs(look(0, 50), look(2250, 0), look(2500, 1550)), undefined, 'starved');
  });

  test('is seen of a process that was stopped within a second, and not of one that waits, or answers', async (t) => {
    const stopped = sleeper(t);
    process.kill(stopped, 'SIGSTOP');
    assert.equal(await hung(t, stopped, false), 'it was stopped');
    assert.equal(await hung(t, sleeper(t), false), 'nothing');
    assert.equal(await hung(t, stopped, true), 'nothing');
  });
});
