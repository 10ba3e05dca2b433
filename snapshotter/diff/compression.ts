import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createGunzip, createGzip, createZstdCompress } from 'node:zlib';
import { InvalidArgument, messageOf } from '../../src/errors.ts';
import { decompressFrames } from './zstd-frames.ts';

/** What a layer's blob may be compressed with. */
export type Compression = 'none' | 'gzip' | 'zstd';

/** Large pieces: each is written with one system call. */
const CHUNK_BYTES = 256 * 1024;
/** What has to be known of a blob's head. */
const MAGIC_BYTES = 4;

/**
 * Hands on the uncompressed bytes of a blob; what it is compressed with is told by its first bytes, as containerd
 * does, since media types have been wrong.
 * @throws InvalidArgument where the compressed data are damaged; what `source` and `take` throw
 */
export async function decompress(
  source: AsyncIterable<Uint8Array>,
  take: (bytes: Buffer) => void,
): Promise<void> {
  const { head, rest } = await split(source);
  const kind = compressionOf(head);
  if (kind === 'none') {
    for await (const chunk of rest) take(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    return;
  }
  try {
    if (kind === 'zstd') await decompressFrames(rest, take, CHUNK_BYTES);
    else
      await pipeline(
        Readable.from(rest, { objectMode: false }),
        createGunzip({ chunkSize: CHUNK_BYTES }),
        each(take),
      );
  } catch (error) {
    if (!isZlibError(error)) throw error;
    throw new InvalidArgument(`the layer's ${kind} data are damaged: ${messageOf(error)}`, { cause: error });
  }
}

/** A stream that compresses; bytes come out as they went in with `none`. */
export function compressor(kind: Compression): Transform {
  if (kind === 'gzip') return createGzip({ chunkSize: CHUNK_BYTES });
  if (kind === 'zstd') return createZstdCompress({ chunkSize: CHUNK_BYTES });
  return new Transform({ transform: (chunk, _encoding, done) => done(null, chunk) });
}

/** By the magic numbers of RFC 1952 and RFC 8878; skippable frames may come first. */
export function compressionOf(head: Buffer): Compression {
  if (head.length >= 3 && head.readUIntBE(0, 3) === 0x1f8b08) return 'gzip';
  if (head.length < MAGIC_BYTES) return 'none';
  const magic = head.readUInt32LE(0);
  return magic === 0xfd2fb528 || (magic & 0xfffffff0) === 0x184d2a50 ? 'zstd' : 'none';
}

function each(take: (bytes: Buffer) => void): (chunks: AsyncIterable<Buffer>) => Promise<void> {
  return async (chunks) => {
    for await (const chunk of chunks) take(chunk);
  };
}

async function split(
  source: AsyncIterable<Uint8Array>,
): Promise<{ head: Buffer; rest: AsyncIterable<Uint8Array> }> {
  const iterator = source[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  let length = 0;
  while (length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done === true) break;
    first.push(next.value);
    length += next.value.length;
  }
  async function* rest(): AsyncIterable<Uint8Array> {
    yield* first;
    yield* { [Symbol.asyncIterator]: () => iterator };
  }
  return { head: Buffer.concat(first).subarray(0, MAGIC_BYTES), rest: rest() };
}

function isZlibError(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false;
  return error.code in constants || /^(Z|ZSTD)_/.test(error.code) || error.code === 'ERR_ZSTD_INVALID_PARAM';
}
