import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { suite, test, type TestContext } from 'node:test';
import { Loading } from '../../../../shim/guard/loading.ts';

const LOOK_MS = 20;

/** What is said of a program within so long that it would be. */
async function said(t: TestContext, command: string, prepare?: (pid: number) => void): Promise<string> {
  const child = spawn('/bin/sh', ['-c', command]);
  t.after(() => child.kill('SIGKILL'));
  const pid = child.pid ?? assert.fail('it does not start');
  prepare?.(pid);
  const told = Promise.withResolvers<string>();
  const loading = new Loading(pid, told.resolve, LOOK_MS);
  t.after(() => loading.stop());
  return Promise.race([
    told.promise,
    new Promise<string>((resolve) => setTimeout(resolve, 40 * LOOK_MS, 'nothing')),
  ]);
}

suite('a worker that loads its program', () => {
  test('hangs where it does nothing', async (t) => {
    assert.match(await said(t, 'exec sleep 600'), /^it has done nothing for .* had not loaded its program$/);
  });

  test('or was stopped', async (t) => {
    const stop = (pid: number): void => void process.kill(pid, 'SIGSTOP');
    assert.match(await said(t, 'exec sleep 600', stop), /^it was stopped/);
  });

  test('but not while it uses a processor, nor when it has said something', async (t) => {
    assert.equal(await said(t, 'while :; do :; done'), 'nothing');
    const child = spawn('sleep', ['600']);
    t.after(() => child.kill('SIGKILL'));
    const told: string[] = [];
    const loading = new Loading(child.pid ?? assert.fail(), (why) => told.push(why), LOOK_MS);
    await new Promise((resolve) => setTimeout(resolve, 5 * LOOK_MS));
    loading.stop();
    await new Promise((resolve) => setTimeout(resolve, 20 * LOOK_MS));
    assert.deepEqual(told, []);
  });
});
