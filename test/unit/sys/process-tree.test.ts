import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { descendantsOf, endProcessesAt } from '../../../src/sys/process-tree.ts';

test('what works in a folder is ended with its descendants, and nothing else', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tree-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  // The grandchild has gone elsewhere.
  const script = '(cd /; sleep 60) & echo $!; wait';
  const inside = spawn('/bin/sh', ['-c', script], { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] });
  const outside = spawn('/bin/sleep', ['60'], { cwd: tmpdir(), stdio: 'ignore' });
  t.after(() => outside.kill('SIGKILL'));
  const [chunk] = (await once(inside.stdout, 'data')) as [Buffer];
  const grandchild = Number(chunk.toString());
  const ended = once(inside, 'exit');
  rmSync(folder, { recursive: true });
  await endProcessesAt(folder);
  assert.deepEqual(await ended, [null, 'SIGKILL']);
  assert.equal(existsSync(`/proc/${grandchild}/root/proc`), false);
  assert.equal(outside.exitCode, null);
  assert.ok(existsSync(`/proc/${outside.pid}`));
});

test('descendants are found by way of the given processes alone', async (t) => {
  const child = spawn('/bin/sh', ['-c', 'sleep 60 & echo $!; wait'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const [chunk] = (await once(child.stdout, 'data')) as [Buffer];
  const grandchild = Number(chunk.toString());
  t.after(() => {
    child.kill('SIGKILL');
    process.kill(grandchild, 'SIGKILL');
  });
  const { pid = 0 } = child;
  const nobody = 2 ** 22 + 1; // above the highest pid of the kernel
  assert.deepEqual(descendantsOf([pid], [grandchild, pid, process.ppid, nobody]), [grandchild, pid]);
  assert.deepEqual(descendantsOf([process.pid], [grandchild, pid]), [grandchild, pid]);
  assert.deepEqual(descendantsOf([process.pid], [grandchild]), []);
});

test('a folder in which nobody works is done with at once', async () => {
  await endProcessesAt('/nonexistent/folder', { timeoutMs: 60_000 });
});
