import { Worker } from 'node:worker_threads';
import { Cancelled, Internal, messageOf } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import { fromFailure, type FromThread, type Job, type JobResult, type ToThread, WINDOW } from './job.ts';

/** Jobs at a time: containerd unpacks one layer after another of an image, and three images at once at most. */
const MAX_THREADS = 3;
/** Milliseconds for which an idle thread waits for the next layer. */
const IDLE_MS = 5000;

/** One file in the sources, one beside stasisd's when bundled. */
const program = new URL(
  import.meta.url.endsWith('.ts') ? './worker.ts' : './diff-worker.mjs',
  import.meta.url,
);

export interface JobStreams {
  /** Bytes for the job. */
  readonly input?: AsyncIterable<Uint8Array>;
  /** Takes the job's bytes; the next come when it has settled. */
  readonly output?: (bytes: Uint8Array) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Threads that unpack and pack layers.
 *
 * Invariants: a thread has one job at a time; a thread whose job was cancelled or broke off is ended and never used
 * again, so nothing of it touches files after `run` has settled; an idle one ends by itself.
 */
export class DiffThreads {
  readonly #log: Logger;
  readonly #idle: { readonly worker: Worker; readonly timer: NodeJS.Timeout }[] = [];
  readonly #waiting: (() => void)[] = [];
  #busy = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** @throws what the job met; Cancelled where the signal was given, when the thread has ended */
  async run(job: Job, streams: JobStreams): Promise<JobResult> {
    while (this.#busy >= MAX_THREADS) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#busy++;
    try {
      streams.signal?.throwIfAborted();
      const worker = this.#take();
      const run = new Run(worker, streams, (warning) => this.#log.warn('unpacking a layer', { warning }));
      try {
        const result = await run.perform(job);
        this.#keep(worker);
        return result;
      } catch (error) {
        if (run.settled) this.#keep(worker);
        else await worker.terminate();
        throw error;
      }
    } finally {
      this.#busy--;
      this.#waiting.shift()?.();
    }
  }

  /** Ends all idle threads. */
  async close(): Promise<void> {
    for (const { worker, timer } of this.#idle.splice(0)) {
      clearTimeout(timer);
      await worker.terminate();
    }
  }

  #take(): Worker {
    const idle = this.#idle.pop();
    if (idle === undefined) return new Worker(program);
    clearTimeout(idle.timer);
    return idle.worker;
  }

  #keep(worker: Worker): void {
    const timer = setTimeout(() => {
      const at = this.#idle.findIndex((each) => each.worker === worker);
      if (at >= 0) this.#idle.splice(at, 1);
      void worker.terminate();
    }, IDLE_MS);
    timer.unref();
    worker.unref();
    this.#idle.push({ worker, timer });
  }
}

/** One job on one thread. */
class Run {
  readonly #worker: Worker;
  readonly #streams: JobStreams;
  readonly #warn: (warning: string) => void;
  /** Whether the thread itself said how the job ended, and so is free. */
  settled = false;
  #window = WINDOW;
  #roomMade: (() => void) | undefined;

  constructor(worker: Worker, streams: JobStreams, warn: (warning: string) => void) {
    this.#worker = worker;
    this.#streams = streams;
    this.#warn = warn;
  }

  async perform(job: Job): Promise<JobResult> {
    const { signal } = this.#streams;
    const worker = this.#worker;
    worker.ref();
    const ended = Promise.withResolvers<JobResult>();
    const onMessage = (message: FromThread): void => this.#receive(message, ended);
    const onError = (error: unknown): void =>
      ended.reject(new Internal(`a thread broke off: ${messageOf(error)}`, { cause: error }));
    const onExit = (): void => ended.reject(new Internal('a thread ended before its job'));
    const onAbort = (): void => ended.reject(new Cancelled('the client cancelled the call'));
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      this.#send({ job });
      this.#feed().catch((error: unknown) => ended.reject(error));
      return await ended.promise;
    } finally {
      this.#roomMade?.();
      signal?.removeEventListener('abort', onAbort);
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
    }
  }

  #receive(message: FromThread, ended: PromiseWithResolvers<JobResult>): void {
    if ('more' in message) {
      this.#window++;
      this.#roomMade?.();
    } else if ('bytes' in message) {
      const taken = this.#streams.output?.(message.bytes) ?? Promise.resolve();
      taken.then(
        () => this.#send({ more: true }),
        (error: unknown) => ended.reject(error),
      );
    } else if ('warning' in message) {
      this.#warn(message.warning);
    } else {
      this.settled = true;
      if ('result' in message) ended.resolve(message.result);
      else ended.reject(fromFailure(message.failure));
    }
  }

  async #feed(): Promise<void> {
    if (this.#streams.input === undefined) return;
    for await (const bytes of this.#streams.input) {
      while (this.#window === 0 && !this.settled)
        await new Promise<void>((resolve) => (this.#roomMade = resolve));
      if (this.settled) return;
      this.#window--;
      this.#send({ bytes: new Uint8Array(bytes) }); // a copy of its own, which the thread is given
    }
    if (!this.settled) this.#send({ end: true });
  }

  #send(message: ToThread): void {
    this.#worker.postMessage(message, 'bytes' in message ? [message.bytes.buffer as ArrayBuffer] : []);
  }
}
