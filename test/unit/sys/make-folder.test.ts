import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { hasErrno } from '../../../src/errors.ts';
import { makeFolder } from '../../../src/sys/make-folder.ts';

test('folders are made with those above them, also by several at once, and what is there stays', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-folder-'));
  try {
    const path = join(folder, 'a/b/c');
    await Promise.all([makeFolder(path, 0o700), makeFolder(path, 0o700), makeFolder(join(folder, 'a/b/d'))]);
    // Sooner or later one finds missing what another has made a moment later.
    for (let round = 0; round < 500; round++)
      await Promise.all(['c', 'c', 'd', 'd'].map((name) => makeFolder(join(folder, `${round}/b/${name}`))));
    assert.equal((await stat(path)).mode & 0o777, 0o700);
    await makeFolder(path);
    await makeFolder('/');
    const file = join(folder, 'file');
    await writeFile(file, '');
    await assert.rejects(makeFolder(file), (error) => hasErrno(error, 'EEXIST'));
    await assert.rejects(makeFolder(join(file, 'x/y')), (error) => hasErrno(error, 'ENOTDIR'));
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('where no folder can be made, below /proc, it is an error instead of an endless loop', async () => {
  for (const path of ['/proc/stasis-nope', '/proc/stasis-nope/deeper/still']) {
    await assert.rejects(makeFolder(path), (error) => hasErrno(error, 'ENOENT'));
  }
});
