import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiffThreads } from '../../../../snapshotter/diff/threads.ts';
import { Code, codeOf, InvalidArgument } from '../../../../src/errors.ts';
import { silent } from '../../../../src/log.ts';
import type { TarEntry } from '../../../../src/tar/entry.ts';
import { encodeEntry, END_OF_ARCHIVE, padding } from '../../../../src/tar/writer.ts';

const blank: TarEntry = {
  name: '',
  type: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: { seconds: 1_700_000_000, nanos: 0 },
  linkname: '',
  major: 0,
  minor: 0,
  xattrs: new Map(),
};

type Item = Partial<TarEntry> & { readonly name: string; readonly content?: string };

function archive(items: readonly Item[]): Buffer {
  return Buffer.concat([
    ...items.flatMap(({ content = '', ...entry }) => {
      const bytes = Buffer.from(content);
      return [encodeEntry({ ...blank, ...entry, size: bytes.length }), bytes, padding(bytes.length)];
    }),
    END_OF_ARCHIVE,
  ]);
}

/** Errors come from the thread as codes. */
const isInvalid = (error: unknown): boolean => codeOf(error) === Code.InvalidArgument;

const folder = (name: string): Item => ({ name: `${name}/`, type: 'directory', mode: 0o755 });
const link = (name: string, linkname: string): Item => ({ name, type: 'symlink', mode: 0o777, linkname });

suite('unpacking a layer', () => {
  const threads = new DiffThreads(silent);
  const outside = mkdtempSync(join(tmpdir(), 'stasis-unpack-'));
  const root = join(outside, 'root');
  beforeEach(() => {
    rmSync(root, { recursive: true, force: true });
    mkdirSync(root);
    writeFileSync(join(outside, 'secret'), 'secret');
  });
  after(async () => {
    await threads.close();
    rmSync(outside, { recursive: true });
  });

  const unpackBytes = async (bytes: Buffer, signal?: AbortSignal): Promise<void> => {
    async function* input(): AsyncIterable<Uint8Array> {
      yield bytes;
    }
    await threads.run({ kind: 'unpack', folder: root, sync: false }, { input: input(), signal });
  };
  const unpack = (...items: Item[]): Promise<void> => unpackBytes(archive(items));
  const inside = (path: string): string => readFileSync(join(root, path), 'utf8');

  test('writes nothing outside, by whatever name or link', async () => {
    await unpack(
      { name: '../../up', content: 'x' },
      { name: '/absolute', content: 'x' },
      { name: 'a/../../../b', content: 'x' },
      link('to-top', '../../../..'),
      { name: 'to-top/c', content: 'x' },
      link('to-outside', outside),
      { name: 'to-outside/secret', content: 'overwritten' },
      folder('dir'),
      link('dir/loop', '..'),
      { name: 'dir/loop/d', content: 'x' },
    );
    assert.deepEqual(readdirSync(outside).sort(), ['root', 'secret']);
    assert.equal(readFileSync(join(outside, 'secret'), 'utf8'), 'secret');
    for (const name of ['up', 'absolute', 'b', 'c', 'd']) assert.equal(inside(name), 'x', name);
    assert.equal(
      inside(`${outside}/secret`),
      'overwritten',
      'the link leads to a folder of that name within',
    );
  });

  test('removes nothing outside, and links to nothing there', async () => {
    symlinkSync(outside, join(root, 'way-out'));
    await unpack({ name: 'way-out/.wh.secret' }, { name: 'way-out/.wh..wh..opq' });
    assert.ok(existsSync(join(outside, 'secret')));
    await assert.rejects(unpack({ name: 'hard', type: 'link', linkname: `${outside}/secret` }), isInvalid);
    await assert.rejects(unpack({ name: 'hard', type: 'link', linkname: '../secret' }), isInvalid);
    for (const name of ['.wh.', '.wh..', '.wh...', 'a/.wh...']) {
      await assert.rejects(unpack(folder('a'), { name }), isInvalid, name);
    }
    assert.ok(existsSync(join(outside, 'secret')));
  });

  test('leaves a link that leads to itself', async () => {
    await assert.rejects(unpack(link('a', 'b'), link('b', 'a'), { name: 'a/c', content: 'x' }));
    assert.ok(!existsSync(join(root, 'a/c')));
  });

  test('replaces what is in the way, of whatever type, and merges folders', async () => {
    for (const name of ['d1', 'd2', 'd3']) mkdirSync(join(root, name));
    for (const name of ['d1/kept', 'd2/gone', 'f1', 'f2']) writeFileSync(join(root, name), 'old');
    symlinkSync('f1', join(root, 'l1'));
    await unpack(
      { ...folder('d1'), mode: 0o700 },
      { name: 'd2', content: 'a file now' },
      link('d3', 'f1'),
      folder('f2'),
      { name: 'f2/new', content: 'x' },
      { name: 'l1', content: 'no link now' },
    );
    assert.equal(inside('d1/kept'), 'old');
    assert.equal(statSync(join(root, 'd1')).mode & 0o777, 0o700);
    assert.equal(inside('d2'), 'a file now');
    assert.equal(inside('d3'), 'old');
    assert.equal(inside('f1'), 'old', 'what the link led to is left');
    assert.equal(inside('l1'), 'no link now');
  });

  test('an opaque folder keeps what its layer brought, before and after the mark, through a link too', async () => {
    mkdirSync(join(root, 'd/old/deep'), { recursive: true });
    mkdirSync(join(root, 'd/both'));
    for (const name of ['d/old/deep/f', 'd/both/old', 'd/f']) writeFileSync(join(root, name), 'old');
    symlinkSync('d', join(root, 'alias'));
    await unpack(
      folder('d/both'),
      { name: 'alias/both/new', content: 'new' },
      { name: 'd/.wh..wh..opq' },
      { name: 'd/after', content: 'new' },
    );
    assert.deepEqual(readdirSync(join(root, 'd')).sort(), ['after', 'both']);
    assert.deepEqual(readdirSync(join(root, 'd/both')), ['new']);
  });

  test('a whiteout takes a folder whose files were just written with it, and the next entry makes it anew', async () => {
    await unpack(
      { name: 'd/e/f', content: 'x' },
      { name: '.wh.d' },
      { name: 'd/e/g', content: 'y' },
      { name: 'd/.wh.absent' },
    );
    assert.deepEqual(readdirSync(join(root, 'd/e')), ['g']);
  });

  test('sets times of folders last, and bounds times as containerd does', async () => {
    await unpack(
      folder('d'),
      { name: 'd/f', content: 'x', mtime: { seconds: -5, nanos: 0 } },
      { name: 'far', mtime: { seconds: 99_999_999_999, nanos: 0 } },
    );
    assert.equal(statSync(join(root, 'd')).mtimeMs, 1_700_000_000_000);
    assert.equal(statSync(join(root, 'd/f')).mtimeMs, 0);
    assert.equal(statSync(join(root, 'far')).mtimeMs, 0);
  });

  test('an entry that cannot be is refused by its name', async () => {
    const device = { name: 'dev', type: 'character', major: 1, minor: 2 ** 33 } as const;
    const bytes = archive([device]);
    bytes.write('\x80\0\0\x02\0\0\0\0', 337, 'latin1'); // base 256
    bytes.fill(' ', 148, 156);
    const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    await assert.rejects(unpackBytes(bytes), /dev has no possible device number/);
    await assert.rejects(unpack({ name: 'a\0b' }), isInvalid);
    await assert.rejects(
      unpackBytes(archive([{ name: 'f', content: 'x'.repeat(600) }]).subarray(0, 700)),
      /cut off/,
    );
    await assert.rejects(unpackBytes(Buffer.from('no archive'.repeat(100))), isInvalid);
  });

  test('that is cancelled ends, and the next one goes on in another thread', async () => {
    const controller = new AbortController();
    async function* endless(): AsyncIterable<Uint8Array> {
      yield archive([{ name: 'f', content: 'x' }]).subarray(0, 1024);
      for (;;) {
        yield archive([{ name: 'g', content: 'x'.repeat(100_000) }]).subarray(0, -1024);
        await sleep(1);
      }
    }
    const running = threads.run(
      { kind: 'unpack', folder: root, sync: false },
      { input: endless(), signal: controller.signal },
    );
    await sleep(200);
    controller.abort();
    await assert.rejects(running, (error) => codeOf(error) === Code.Cancelled);
    const files = readdirSync(root).length;
    await sleep(100);
    assert.equal(readdirSync(root).length, files, 'nothing is written afterwards');
    await unpack({ name: 'h', content: 'x' });
    assert.equal(inside('h'), 'x');
  });

  test('of which the source breaks off ends with its error', async () => {
    async function* broken(): AsyncIterable<Uint8Array> {
      yield archive([{ name: 'f', content: 'x' }]).subarray(0, 600);
      throw new InvalidArgument('the store broke off');
    }
    await assert.rejects(
      threads.run({ kind: 'unpack', folder: root, sync: false }, { input: broken() }),
      /the store broke off/,
    );
  });
});
