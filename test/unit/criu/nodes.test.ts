import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeTree, readTree } from '../../../src/criu/nodes.ts';

const folder = mkdtempSync(join(tmpdir(), 'stasis-nodes-'));
after(() => rmSync(folder, { recursive: true }));
const root = process.getuid?.() === 0;

test(
  'a tree of devices, folders and links is made anew as it was',
  { skip: root ? false : 'needs root' },
  () => {
    const from = join(folder, 'from');
    mkdirSync(join(from, 'shm/deeper'), { recursive: true });
    symlinkSync('/proc/self/fd', join(from, 'fd'));
    execFileSync('mknod', ['-m', '666', join(from, 'null'), 'c', '1', '3']);
    execFileSync('chown', ['7:8', join(from, 'null')]);
    utimesSync(join(from, 'shm'), 1000, 1000);
    const to = join(folder, 'to');
    mkdirSync(to);
    const tree = readTree(from);
    assert.ok(tree !== undefined);
    makeTree(to, JSON.parse(JSON.stringify(tree)) as typeof tree);
    // A folder answers in an order of its own, by file system.
    const sorted = (entries: typeof tree | undefined) =>
      entries?.toSorted((a, b) => (a.path < b.path ? -1 : 1));
    assert.deepEqual(sorted(readTree(to)), sorted(tree));
    assert.equal(readlinkSync(join(to, 'fd')), '/proc/self/fd');
    const made = lstatSync(join(to, 'null'));
    assert.deepEqual([made.rdev, made.mode.toString(8), made.uid, made.gid], [0x103, '20666', 7, 8]);
    assert.equal(lstatSync(join(to, 'shm')).mtimeMs, 1_000_000);
  },
);

test('what holds a file, or much, is left to CRIU', () => {
  const file = join(folder, 'file');
  mkdirSync(file);
  writeFileSync(join(file, 'x'), '');
  assert.equal(readTree(file), undefined);
  const many = join(folder, 'many');
  for (let n = 0; n < 70; n++) mkdirSync(join(many, String(n)), { recursive: true });
  assert.equal(readTree(many), undefined);
});

test('paths that lead out of the tree are refused', () => {
  for (const path of ['../x', '/x', 'a/../../x', ''])
    assert.throws(
      () => makeTree(folder, [{ path, mode: 0o40755, uid: 0, gid: 0, modifiedMs: 0 }]),
      /is no path in a tree/,
    );
});
