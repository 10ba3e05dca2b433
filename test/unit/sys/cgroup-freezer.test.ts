import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { DeadlineExceeded, FailedPrecondition, NotFound } from '../../../src/errors.ts';
import type { Cgroup } from '../../../src/sys/cgroup.ts';
import { freezerOf } from '../../../src/sys/cgroup-freezer.ts';
import { killCgroup } from '../../../src/sys/cgroup-remove.ts';

const folder = mkdtempSync(join(tmpdir(), 'stasis-freezer-'));
after(() => rmSync(folder, { recursive: true }));
const v1: Cgroup = { version: 1, path: '/web', folders: new Map([['freezer', folder]]) };
const v2: Cgroup = { version: 2, path: '/web', folders: new Map([['', folder]]) };
const file = (name: string): string => join(folder, name);

test('v1: a cgroup counts as frozen when the kernel says so, not when it was asked', async () => {
  writeFileSync(file('freezer.state'), 'FREEZING\n');
  assert.equal(await freezerOf(v1).isFrozen(), false);
  // A plain file keeps what is written, as a kernel that freezes at once; both words have six letters.
  writeFileSync(file('freezer.state'), 'THAWED');
  await freezerOf(v1).freeze();
  assert.equal(await freezerOf(v1).isFrozen(), true);
  await freezerOf(v1).thaw();
  assert.equal(readFileSync(file('freezer.state'), 'utf8').startsWith('THAWED'), true);
});

test('v2: one that does not stop in time is thawed again and named', async () => {
  writeFileSync(file('cgroup.freeze'), '0');
  writeFileSync(file('cgroup.events'), 'populated 1\nfrozen 0\n');
  await assert.rejects(freezerOf(v2).freeze({ timeoutMs: 20 }), DeadlineExceeded);
  assert.equal(readFileSync(file('cgroup.freeze'), 'utf8'), '0');
});

test('v2: the wait ends when the kernel reports the last task', async () => {
  writeFileSync(file('cgroup.events'), 'populated 1\nfrozen 0\n');
  setTimeout(() => writeFileSync(file('cgroup.events'), 'populated 1\nfrozen 1\n'), 30);
  await freezerOf(v2).freeze({ timeoutMs: 5000 });
  assert.equal(readFileSync(file('cgroup.freeze'), 'utf8'), '1');
});

test('v2: what was killed while it stood frozen leaves no frozen cgroup', async () => {
  writeFileSync(file('cgroup.kill'), '');
  writeFileSync(file('cgroup.freeze'), '1');
  await killCgroup(v2);
  assert.equal(readFileSync(file('cgroup.kill'), 'utf8'), '1');
  assert.equal(readFileSync(file('cgroup.freeze'), 'utf8'), '0');
});

test('a cgroup with a process of the host in it is not killed, nor anybody in it', async () => {
  const sleeper = spawn('sleep', ['60'], { stdio: 'ignore' });
  try {
    for (const pid of [1, process.pid]) {
      writeFileSync(file('cgroup.procs'), `${sleeper.pid}\n${pid}\n`);
      writeFileSync(file('cgroup.kill'), '');
      await assert.rejects(
        killCgroup(v2),
        (error: unknown) =>
          error instanceof FailedPrecondition && error.message.includes(`/web holds process ${pid},`),
      );
      assert.equal(readFileSync(file('cgroup.kill'), 'utf8'), '');
    }
    assert.equal(sleeper.signalCode, null);
    process.kill(sleeper.pid ?? 0, 0);
  } finally {
    sleeper.kill('SIGKILL');
    rmSync(file('cgroup.procs'));
  }
});

test('a cgroup that is gone cannot be frozen, needs no thaw and is not frozen', async () => {
  for (const cgroup of [v1, v2]) {
    const gone: Cgroup = {
      ...cgroup,
      folders: new Map([...cgroup.folders.keys()].map((key) => [key, file('gone')])),
    };
    await assert.rejects(freezerOf(gone).freeze(), NotFound);
    await freezerOf(gone).thaw();
    assert.equal(await freezerOf(gone).isFrozen(), false);
  }
});

test('a host without the freezer is told how to mount it', () => {
  assert.throws(
    () => freezerOf({ version: 1, path: '/web', folders: new Map([['memory', folder]]) }),
    FailedPrecondition,
  );
});
