// Frames over a byte stream: decodes what arrives, gathers what leaves, and knows when to stop reading.
import type { Duplex } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import type { Frame } from './frame.ts';
import { FrameDecoder } from './frame.ts';

export interface ChannelEvents {
  onFrame(frame: Frame): void;
  /** Called once, after which nothing is called. `error` is missing where the peer closed in good order. */
  onClose(error: Error | undefined): void;
}

export interface ChannelOptions {
  /**
   * Stop reading while the peer does not read: a server's protection against a client that only sends. A client
   * must not do the same, or both would wait for each other.
   */
  readonly readOnlyWhileWritable: boolean;
}

/** Bytes up to which gathered frames are copied together rather than written as a list. */
const GATHER_COPY_LIMIT = 64 << 10;
/** Bytes that a stream may send in one turn of the event loop. */
const BURST = 64 << 10;

/**
 * INVARIANTS
 * - Frames leave in the order of `send`. Those of one turn of the event loop leave together, in one write.
 * - No `onFrame` or `send` has an effect after `onClose`; `onClose` is called exactly once, never from within
 *   the constructor.
 * - The stream is read if and only if nobody holds the channel.
 */
export class Channel {
  readonly stream: Duplex;
  readonly #events: ChannelEvents;
  readonly #options: ChannelOptions;
  readonly #decoder = new FrameDecoder();
  readonly #holders = new Set<object>();
  #gathered: Uint8Array[] = [];
  #gatheredBytes = 0;
  #flushScheduled = false;
  #blocked = false;
  #pacedBytes = 0;
  #waiting: (() => void)[] = [];
  #error: Error | undefined;
  #closed = false;
  readonly #flush = () => {
    this.#flushScheduled = false;
    this.#write();
  };

  constructor(stream: Duplex, events: ChannelEvents, options: ChannelOptions) {
    this.stream = stream;
    this.#events = events;
    this.#options = options;
    stream.on('error', (error: Error) => {
      this.#error ??= error;
    });
    stream.once('close', () => this.#close());
    if (stream.destroyed) {
      queueMicrotask(() => this.#close());
      return;
    }
    stream.on('drain', () => this.#drained());
    stream.once('end', () => stream.destroy());
    stream.on('data', (chunk: Uint8Array) => this.#receive(chunk));
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Bytes that were sent and that the peer has not taken yet, apart from what its socket buffers. */
  get queued(): number {
    return this.#gatheredBytes + this.stream.writableLength;
  }

  /** Sends one whole frame; the bytes belong to the channel from then on. */
  send(bytes: Uint8Array): void {
    // What is sent after the end would be gathered, and never leave.
    if (this.stream.destroyed || this.stream.writableEnded) return;
    this.#gathered.push(bytes);
    this.#gatheredBytes += bytes.length;
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    // A tick runs after all promise reactions that are ready: the answers of calls that arrived together gather.
    process.nextTick(this.#flush);
  }

  /**
   * Sends one of many frames and returns what to wait for before the next, if anything: room in the stream, and
   * now and then a turn of the event loop, which a sender that never has to wait for its messages would stop.
   */
  sendPaced(bytes: Uint8Array): Promise<void> | undefined {
    this.send(bytes);
    this.#pacedBytes += bytes.length;
    if (!this.#blocked && this.#pacedBytes < BURST) return undefined;
    this.#pacedBytes = 0;
    return setImmediate().then(() => this.#drain());
  }

  /** Stops reading until `owner` releases. */
  hold(owner: object): void {
    this.#holders.add(owner);
    if (this.#holders.size === 1) this.stream.pause();
  }

  release(owner: object): void {
    if (this.#holders.delete(owner) && this.#holders.size === 0 && !this.#closed) this.stream.resume();
  }

  /** Sends what is queued, then closes. */
  end(): void {
    if (this.#closed) return;
    this.#write();
    this.stream.end(() => this.stream.destroy());
  }

  /** Closes now; what is queued is lost. */
  destroy(error?: Error): void {
    this.#error ??= error;
    this.stream.destroy();
  }

  #drain(): Promise<void> | undefined {
    if (!this.#blocked || this.#closed) return undefined;
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #receive(chunk: Uint8Array): void {
    for (const frame of this.#decoder.push(chunk)) {
      if (this.#closed || this.stream.destroyed) return;
      this.#events.onFrame(frame);
    }
  }

  #write(): void {
    const frames = this.#gathered;
    if (frames.length === 0 || this.stream.destroyed || this.stream.writableEnded) return;
    const bytes = this.#gatheredBytes;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    let room: boolean;
    if (frames.length === 1) room = this.stream.write(frames[0]);
    else if (bytes <= GATHER_COPY_LIMIT) room = this.stream.write(Buffer.concat(frames, bytes));
    else room = this.#writeCorked(frames);
    if (room) return;
    this.#blocked = true;
    if (this.#options.readOnlyWhileWritable) this.hold(this);
  }

  #writeCorked(frames: readonly Uint8Array[]): boolean {
    let room = true;
    this.stream.cork();
    for (const frame of frames) room = this.stream.write(frame);
    this.stream.uncork();
    return room;
  }

  #drained(): void {
    this.#blocked = false;
    this.release(this);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#drained();
    this.#events.onClose(this.#error);
  }
}
