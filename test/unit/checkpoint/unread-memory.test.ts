import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { STOCK_FILE } from '../../../src/checkpoint/stock.ts';
import { UnreadMemory } from '../../../src/checkpoint/unread-memory.ts';
import type { TarEntry } from '../../../src/tar/entry.ts';
import { encodeEntry, END_OF_ARCHIVE, padding } from '../../../src/tar/writer.ts';

const blank: Omit<TarEntry, 'name' | 'size'> = {
  ...{ type: 'file', mode: 0o600, uid: 0, gid: 0, linkname: '', major: 0, minor: 0, xattrs: new Map() },
  mtime: { seconds: 1, nanos: 5 },
};

function archive(files: Record<string, string>): Buffer {
  const parts = Object.entries(files).flatMap(([name, content]) => [
    encodeEntry({ ...blank, name, size: content.length }),
    Buffer.from(content),
    padding(content.length),
  ]);
  return Buffer.concat([...parts, END_OF_ARCHIVE]);
}

const memoryOf = (id: string): Buffer =>
  archive({ 'core-1.img': 'c'.repeat(700), [STOCK_FILE]: JSON.stringify({ checkpoint: id }), 'x.img': '' });

/** containerd's part, on folders of a test's own. */
function scene(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), 'unread-'));
  const blobs = join(root, 'blobs');
  mkdirSync(blobs);
  const lost: string[] = [];
  const watch = new UnreadMemory((id) => lost.push(id));
  t.after(() => {
    watch.close();
    rmSync(root, { recursive: true });
  });
  const folder = (id: string): string => join(root, `checkpoint-${id}`);
  return {
    lost,
    folder,
    blob: (name: string): string => join(blobs, name),
    begin: (id: string): boolean => {
      mkdirSync(folder(id));
      return watch.follow(id, folder(id), blobs);
    },
    commit: (name: string, content: Buffer): void => {
      writeFileSync(join(root, 'ingest'), content);
      renameSync(join(root, 'ingest'), join(blobs, name));
    },
    /** As long as it takes to be woken, and longer. */
    settle: () => sleep(50),
  };
}

test('memory that was collected before anybody had opened it is lost, and told once', async (t) => {
  const { lost, begin, commit, blob, folder, settle } = scene(t);
  assert.equal(begin('one'), true);
  assert.equal(begin('two'), true);
  commit('layer', gzipSync('a layer that is pulled meanwhile'));
  commit('a', memoryOf('one'));
  commit('b', memoryOf('two'));
  commit('spec', Buffer.from('{}'));
  await settle();
  rmSync(folder('one'), { recursive: true });
  rmSync(folder('two'), { recursive: true });
  await settle();
  assert.deepEqual(lost, [], 'it is there');
  rmSync(blob('a'));
  await settle();
  assert.deepEqual(lost, ['one']);
  rmSync(blob('b'));
  rmSync(blob('spec'));
  await settle();
  assert.deepEqual(lost, ['one', 'two']);
});

test('memory that somebody opened is not lost, whenever that was', async (t) => {
  const { lost, begin, commit, blob, folder, settle } = scene(t);
  for (const id of ['at once', 'later', 'moved']) begin(id);
  commit('a', memoryOf('at once'));
  readFileSync(blob('a')); // before we are woken
  commit('b', memoryOf('later'));
  commit('c', memoryOf('moved'));
  await settle();
  readFileSync(blob('b'));
  renameSync(blob('c'), folder('moved') + '-kept');
  for (const id of ['at once', 'later', 'moved']) rmSync(folder(id), { recursive: true });
  rmSync(blob('a'));
  rmSync(blob('b'));
  await settle();
  assert.deepEqual(lost, []);
});

test('memory of which no blob was made is lost with its folder, unless one may have been its own', async (t) => {
  const { lost, begin, commit, blob, folder, settle } = scene(t);
  begin('one');
  commit('layer', archive({ 'etc/passwd': 'root' }));
  commit('spec', Buffer.from('{"a": 1}'));
  rmSync(folder('one'), { recursive: true });
  await settle();
  assert.deepEqual(lost, ['one']);
  for (const [id, content] of [
    ['compressed', gzipSync(memoryOf('compressed'))],
    ['cut off', memoryOf('cut off').subarray(0, 1024)],
  ] as const) {
    begin(id);
    commit(id, content);
    rmSync(folder(id), { recursive: true });
    await settle();
  }
  begin('gone');
  commit('gone', memoryOf('gone'));
  rmSync(blob('gone')); // before we are woken
  rmSync(folder('gone'), { recursive: true });
  await settle();
  assert.deepEqual(lost, ['one']);
});

test('memory that stays is not lost when its folder goes', async (t) => {
  const { lost, begin, commit, folder, settle } = scene(t);
  assert.equal(begin('kept'), true);
  commit('a', memoryOf('kept'));
  await settle();
  rmSync(folder('kept'), { recursive: true });
  await settle();
  assert.deepEqual(lost, []);
});

test('a folder that is complete already is not followed: its blob may have come and gone', async (t) => {
  const { lost, folder, settle, blob } = scene(t);
  const watch = new UnreadMemory((id) => lost.push(id));
  mkdirSync(folder('late'));
  writeFileSync(join(folder('late'), STOCK_FILE), '{}');
  assert.equal(watch.follow('late', folder('late'), join(blob('x'), '..')), false);
  rmSync(folder('late'), { recursive: true });
  await settle();
  assert.deepEqual(lost, []);
});
