// The messages of one direction of a stream, between the channel that receives them and the loop that takes them.
import type { MessageType } from './service.ts';
import { Code, StatusError } from './status.ts';

/** What an Inbox does to the connection that fills it. */
export interface InboxOwner {
  /** Stops and resumes reading; see Channel. */
  hold(owner: object): void;
  release(owner: object): void;
}

const MOST_MESSAGES = 64;
const MOST_BYTES = 1 << 20;
/** Milliseconds that a full inbox may stall its connection; the same second as the Go library's. */
const PATIENCE = 1000;

/**
 * INVARIANTS
 * - ttrpc has no flow control for a single stream. A full inbox stops the whole connection, but for one second
 *   at most: then its own stream fails with ResourceExhausted and the others go on.
 * - `end` and `fail` come after all messages pushed before them, `abort` at once. Nothing comes after them.
 */
export class Inbox<T> implements AsyncIterableIterator<T> {
  readonly #type: MessageType<T>;
  readonly #channel: InboxOwner;
  readonly #onAbandon: (error: StatusError | undefined) => void;
  readonly #queue: Uint8Array[] = [];
  #bytes = 0;
  #takers: { resolve: (result: IteratorResult<T, undefined>) => void; reject: (error: Error) => void }[] = [];
  #ended = false;
  #error: StatusError | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** `onAbandon` is told when the taker left early (no error) or was too slow (the error). */
  constructor(
    type: MessageType<T>,
    channel: InboxOwner,
    onAbandon: (error: StatusError | undefined) => void = () => undefined,
  ) {
    this.#type = type;
    this.#channel = channel;
    this.#onAbandon = onAbandon;
  }

  push(body: Uint8Array): void {
    if (this.#ended) return;
    const taker = this.#takers.shift();
    if (taker !== undefined) {
      this.#deliver(body, taker);
      return;
    }
    // A view would keep the whole chunk that it came in.
    this.#queue.push(body.buffer.byteLength > 2 * body.length ? body.slice() : body);
    this.#bytes += body.length;
    if (this.#queue.length < MOST_MESSAGES && this.#bytes < MOST_BYTES) return;
    if (this.#timer !== undefined) return;
    this.#channel.hold(this);
    this.#timer = setTimeout(() => this.#overflow(), PATIENCE);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#freeChannel();
    for (const { resolve } of this.#takers.splice(0)) resolve({ value: undefined, done: true });
  }

  fail(error: StatusError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#freeChannel();
    const [first, ...others] = this.#takers.splice(0);
    if (first === undefined) this.#error = error;
    else first.reject(error);
    for (const { resolve } of others) resolve({ value: undefined, done: true });
  }

  /** Fails without handing out what waits still. */
  abort(error: StatusError): void {
    if (this.#ended) return;
    this.#clear();
    this.fail(error);
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const body = this.#queue.shift();
    if (body !== undefined) {
      this.#bytes -= body.length;
      if (this.#queue.length < MOST_MESSAGES / 2 && this.#bytes < MOST_BYTES / 2) this.#freeChannel();
      return new Promise((resolve, reject) => this.#deliver(body, { resolve, reject }));
    }
    const error = this.#error;
    if (error !== undefined) {
      this.#error = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T, undefined>> {
    const early = !this.#ended;
    this.#error = undefined;
    this.#clear();
    this.end();
    if (early) this.#onAbandon(undefined);
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #deliver(
    body: Uint8Array,
    taker: { resolve: (result: IteratorResult<T, undefined>) => void; reject: (error: Error) => void },
  ): void {
    let value: T;
    try {
      value = this.#type.decode(body);
    } catch (cause) {
      taker.reject(decodeError(cause));
      return;
    }
    taker.resolve({ value, done: false });
  }

  #overflow(): void {
    const error = new StatusError(Code.ResourceExhausted, 'ttrpc: stream buffer full');
    this.abort(error);
    this.#onAbandon(error);
  }

  #clear(): void {
    this.#queue.length = 0;
    this.#bytes = 0;
  }

  #freeChannel(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#channel.release(this);
  }
}

/** A payload that is not the message it should be. */
export function decodeError(cause: unknown): StatusError {
  return new StatusError(Code.Internal, `ttrpc: error unmarshalling payload: ${String(cause)}`, { cause });
}
