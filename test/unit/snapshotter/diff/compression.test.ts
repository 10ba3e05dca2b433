import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { compressor, decompress, type Compression } from '../../../../snapshotter/diff/compression.ts';
import { InvalidArgument } from '../../../../src/errors.ts';

const text = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * at) % 251));
const skippable = Buffer.from('502a4d1804000000deadbeef', 'hex');

async function plain(blob: Buffer, step = 65_536): Promise<Buffer> {
  async function* source(): AsyncIterable<Uint8Array> {
    for (let at = 0; at < blob.length; at += step) yield blob.subarray(at, at + step);
  }
  const found: Buffer[] = [];
  await decompress(source(), (bytes) => found.push(Buffer.from(bytes)));
  return Buffer.concat(found);
}

suite('a blob', () => {
  const [gzip, zstd] = [gzipSync(text), zstdCompressSync(text)];
  const blobs: Record<string, readonly [blob: Buffer, times: number]> = {
    'that is not compressed': [text, 1],
    'of one byte': [Buffer.from('x'), 0],
    'of gzip': [gzip, 1],
    'of several members of gzip': [Buffer.concat([gzip, gzip]), 2],
    'of zstd': [zstd, 1],
    'of several frames of zstd': [Buffer.concat([zstd, zstd, zstd]), 3],
    'of zstd with skippable frames': [Buffer.concat([skippable, zstd, skippable, zstd, skippable]), 2],
  };
  for (const [what, [blob, times]] of Object.entries(blobs)) {
    test(`${what} is uncompressed whole, however its bytes arrive`, async () => {
      const expected = times === 0 ? blob : Buffer.concat(Array.from({ length: times }, () => text));
      for (const step of [blob.length, 65_536, 997])
        assert.ok((await plain(blob, step)).equals(expected), `by ${step}`);
      if (blob.length < 100_000) assert.ok((await plain(blob, 1)).equals(expected), 'by one');
    });
  }

  test('that is damaged or cut off is refused', async () => {
    for (const blob of [gzip, zstd, Buffer.concat([zstd, zstd])]) {
      await assert.rejects(plain(blob.subarray(0, -20)), InvalidArgument);
    }
    const damaged = Buffer.from(gzip); // zstd has no sum of its content: the layer's digest tells
    damaged.fill(0x55, 30, 60);
    await assert.rejects(plain(damaged), InvalidArgument);
  });

  test("that its taker refuses ends with the taker's error", async () => {
    for (const blob of [text, gzip, zstd]) {
      async function* source(): AsyncIterable<Uint8Array> {
        yield blob;
      }
      const refuse = (): never => {
        throw new Error('no room');
      };
      await assert.rejects(decompress(source(), refuse), /no room/);
    }
  });

  for (const kind of ['none', 'gzip', 'zstd'] satisfies Compression[]) {
    test(`compressed with ${kind} here is uncompressed to the same`, async () => {
      const stream = compressor(kind);
      const packed: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => packed.push(chunk));
      const ended = new Promise((resolve) => stream.once('end', resolve));
      stream.end(text);
      await ended;
      assert.ok((await plain(Buffer.concat(packed))).equals(text));
    });
  }
});
