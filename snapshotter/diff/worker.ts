import { createHash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import { syncfsNow } from '../../src/sys/syncfs.ts';
import { ThreadRoot } from '../../src/sys/thread-root.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { decompress } from './compression.ts';
import { type FromThread, type Job, type JobResult, toFailure, type ToThread } from './job.ts';
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

async function perform(job: Job): Promise<JobResult> {
  switch (job.kind) {
    case 'unpack':
      return unpack(job);
    case 'pack':
      throw new Error('not reached');
  }
}

port.on('message', (message: ToThread) => {
  if ('bytes' in message) return input.put(message.bytes);
  if ('end' in message) return input.put(undefined);
  if ('more' in message) return;
  input = new Input();
  perform(message.job).then(
    (result) => send({ result }),
    (error: unknown) => send({ failure: toFailure(error) }),
  );
});
