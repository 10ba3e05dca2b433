import { createHash, type Hash } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { parentPort } from 'node:worker_threads';
import { syncfsNow } from '../../src/sys/syncfs.ts';
import { ThreadRoot } from '../../src/sys/thread-root.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { compareTrees } from './compare.ts';
import { compressor, decompress } from './compression.ts';
import { type FromThread, type Job, type JobResult, toFailure, type ToThread, WINDOW } from './job.ts';
import { Packer } from './pack.ts';
import { Unpacker } from './unpack.ts';

/** A thread's program: one job after another, see job.ts. */

const port = parentPort;
if (port === null) throw new Error('this is the program of a thread');
const root = new ThreadRoot();

/** Bytes that come for the job; asks for one piece more with each that is taken. */
class Input implements AsyncIterable<Uint8Array> {
  readonly #pieces: Uint8Array[] = [];
  #ended = false;
  #wake: (() => void) | undefined;

  put(bytes: Uint8Array | undefined): void {
    if (bytes === undefined) this.#ended = true;
    else this.#pieces.push(bytes);
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const piece = this.#pieces.shift();
      if (piece !== undefined) {
        yield piece;
        send({ more: true });
      } else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

let input = new Input();

/** Leave to send. */
let window = 0;
let windowOpened: (() => void) | undefined;

function send(message: FromThread): void {
  const bytes = 'bytes' in message ? message.bytes : undefined;
  port?.postMessage(message, bytes === undefined ? [] : [bytes.buffer as ArrayBuffer]);
}

async function unpack(job: Job & { kind: 'unpack' }): Promise<JobResult> {
  const unpacker = new Unpacker((warning) => send({ warning }));
  const reader = new TarReader();
  const hash = createHash('sha256');
  let size = 0;
  root.enter(job.folder);
  try {
    await decompress(input, (bytes) => {
      hash.update(bytes);
      size += bytes.length;
      for (const event of reader.push(bytes)) unpacker.take(event);
    });
    reader.end();
    unpacker.finish();
    if (job.sync) syncfsNow('/');
  } finally {
    unpacker.close();
    root.leave();
  }
  return { digest: `sha256:${hash.digest('hex')}`, size, packedDigest: '', packedSize: 0 };
}

async function pack(job: Job & { kind: 'pack' }): Promise<JobResult> {
  const [plain, packed] = [createHash('sha256'), createHash('sha256')];
  let [size, packedSize] = [0, 0];
  function* archive(): Generator<Buffer> {
    const [left, right] = [job.left, job.right].map((path) => path && Buffer.from(path).toString('latin1'));
    for (const bytes of new Packer(right ?? '', job.latest).pack(
      compareTrees(left, right ?? '', job.known),
    )) {
      plain.update(bytes);
      size += bytes.length;
      yield bytes;
    }
  }
  const take = async (pieces: AsyncIterable<Buffer>): Promise<void> => {
    for await (const bytes of pieces) {
      packed.update(bytes);
      packedSize += bytes.length;
      while (window === 0) await new Promise<void>((resolve) => (windowOpened = resolve));
      window--;
      send({ bytes: new Uint8Array(bytes) });
    }
  };
  await pipeline(Readable.from(archive(), { objectMode: false }), compressor(job.compression), take);
  const digest = (hash: Hash): string => `sha256:${hash.digest('hex')}`;
  return { digest: digest(plain), size, packedDigest: digest(packed), packedSize };
}

async function perform(job: Job): Promise<JobResult> {
  switch (job.kind) {
    case 'unpack':
      return unpack(job);
    case 'pack':
      return pack(job);
  }
}

port.on('message', (message: ToThread) => {
  if ('bytes' in message) return input.put(message.bytes);
  if ('end' in message) return input.put(undefined);
  if ('more' in message) {
    window++;
    return windowOpened?.();
  }
  input = new Input();
  window = WINDOW;
  perform(message.job).then(
    (result) => send({ result }),
    (error: unknown) => send({ failure: toFailure(error) }),
  );
});
