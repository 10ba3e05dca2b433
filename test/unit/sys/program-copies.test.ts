import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type TestContext } from 'node:test';
import { execWith } from '../../../src/sys/spawned-command.ts';
import { ProgramCopies } from '../../../src/sys/program-copies.ts';
import { ChildReaper } from '../../../shim/reaper/reaper.ts';
import { sealedCopy } from '../../../src/sys/sealed-copy.ts';
import { hasErrno } from '../../../src/errors.ts';
import { closeSync, openSync, writeSync } from 'node:fs';

const fails = (errno: string) => (error: unknown) => hasErrno(error, errno);

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'copies-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** Where a program is started once its copy has had time to be made. */
async function settled(copies: ProgramCopies, path: string): Promise<string> {
  for (let i = 0; i < 200 && copies.of(path) === path; i++) await sleep(10);
  return copies.of(path);
}

test('a program is started from its copy, under its own name, and a replaced one from another', async (t) => {
  const reaper = new ChildReaper().start();
  t.after(() => reaper.stop());
  const exec = execWith(reaper);
  const program = join(folder(t), 'program');
  copyFileSync('/bin/sh', program);
  const where = async (): Promise<string> => {
    const script = 'readlink /proc/$$/exe; echo "$0"; tr "\\0" " " </proc/$$/cmdline';
    const { stdout } = await exec(program, ['-c', script], { copiesItself: true });
    const [exe = '', name, line = ''] = stdout.split('\n');
    assert.equal(name, program);
    assert.ok(line.startsWith(`${program} -c`), line);
    return exe;
  };
  assert.equal(await where(), program, 'nobody waits for the copy');
  let exe = '';
  for (let i = 0; i < 200 && !exe.startsWith('/memfd:'); i++) {
    exe = await where();
    await sleep(10);
  }
  assert.match(exe, /^\/memfd:/);
  copyFileSync('/bin/sh', `${program}.new`);
  renameSync(`${program}.new`, program);
  assert.equal(await where(), program);
  rmSync(program);
  const gone = await exec(program, ['-c', 'true'], { copiesItself: true });
  assert.equal(gone.spawnError, 'ENOENT');
});

test('of many programs the copies of those that were used last are kept', async (t) => {
  const copies = new ProgramCopies();
  const dir = folder(t);
  const programs = Array.from({ length: 6 }, (_, at) => join(dir, `program-${at}`));
  for (const program of programs) {
    copyFileSync('/bin/true', program);
    assert.match(await settled(copies, program), /^\/proc\/self\/fd\/\d+$/);
  }
  const [first = '', , , , , last = ''] = programs;
  assert.notEqual(copies.of(last), last);
  assert.equal(copies.of(first), first, 'its copy went, and is made anew');
  await settled(copies, first);
});

test('a script, and what cannot be read, are started as they are', async (t) => {
  const copies = new ProgramCopies();
  const dir = folder(t);
  writeFileSync(join(dir, 'script'), '#!/bin/sh\necho ran\n', { mode: 0o755 });
  copies.of(join(dir, 'script'));
  copies.of(join(dir, 'missing'));
  await sleep(100);
  assert.equal(copies.of(join(dir, 'script')), join(dir, 'script'));
  assert.equal(copies.of(join(dir, 'missing')), join(dir, 'missing'));
  const copy = await settled(copies, '/bin/true');
  assert.equal(await settled(copies, '/bin/true'), copy, 'one is made, and kept');
});

test('a sealed copy cannot be changed by anybody', async (t) => {
  const fd = await sealedCopy('/bin/true');
  assert.throws(() => writeSync(fd, 'x', 0), fails('EPERM'));
  const again = openSync(`/proc/self/fd/${fd}`, 'r+');
  assert.throws(() => writeSync(again, 'x', 0), fails('EPERM'));
  assert.throws(() => openSync(`/proc/self/fd/${fd}`, 'w'), fails('EPERM'));
  for (const each of [fd, again]) closeSync(each);
  await assert.rejects(sealedCopy(join(folder(t), 'none')), fails('ENOENT'));
});
