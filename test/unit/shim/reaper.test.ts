import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import test from 'node:test';
import { promisify } from 'node:util';
import { ChildReaper, type Exit } from '../../../shim/reaper/reaper.ts';
import { becomeSubreaper } from '../../../src/sys/process.ts';

const run = promisify(execFile);

/**
 * Starts a process that is orphaned at once, and so becomes ours; answers its pid. It waits for its parent to be gone: on a
 * busy machine it may end first, and then the shell reaps it.
 */
async function orphan(script: string): Promise<number> {
  const wait = 'while [ -d /proc/$$ ]; do sleep 0.01; done';
  const { stdout } = await run('/bin/sh', ['-c', `(${wait}; ${script}) >/dev/null 2>&1 & echo $!`]);
  return Number(stdout);
}

test('orphans are reaped with their status, while libuv keeps its own children', async (t) => {
  becomeSubreaper();
  const reaper = new ChildReaper().start();
  t.after(() => reaper.stop());
  const expectation = reaper.expect();
  const exits = ['exit 3', 'kill -9 $$; sleep 5', 'sleep 0.2; exit 4'].map(async (script) => {
    const pid = await orphan(`exec sh -c '${script}'`);
    return new Promise<Exit>((resolve) => expectation.claim(pid, resolve));
  });
  const own = Array.from({ length: 20 }, async (_, i) => {
    const child = spawn('/bin/sh', ['-c', `exit ${i}`]);
    const [code] = (await once(child, 'exit')) as [number];
    assert.equal(code, i);
  });
  await Promise.all(own);
  assert.deepEqual(
    (await Promise.all(exits)).map((exit) => exit.status),
    [3, 137, 4],
  );
  expectation.close();
});

/** Until the reaper has taken a process off the kernel's hands, however busy the machine is. */
async function reaped(pid: number): Promise<void> {
  while (existsSync(`/proc/${pid}`)) await new Promise((resolve) => setTimeout(resolve, 5));
}

test('an exit before its claim is kept for it, but not beyond the expectation', async (t) => {
  becomeSubreaper();
  const reaper = new ChildReaper().start();
  t.after(() => reaper.stop());
  const expectation = reaper.expect();
  const pid = await orphan('exit 5');
  await reaped(pid);
  const exit = await new Promise<Exit>((resolve) => expectation.claim(pid, resolve));
  assert.equal(exit.status, 5);
  const late = await orphan('exit 6');
  await reaped(late);
  expectation.close();
  reaper.expect().claim(late, () => assert.fail('an old exit met a new claim'));
  await new Promise((resolve) => setTimeout(resolve, 50));
});
