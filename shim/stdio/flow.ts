import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { hasErrno } from '../../src/errors.ts';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { splice } from '../../src/sys/splice.ts';
import { bytesWaiting } from '../../src/sys/waiting.ts';
import { PIPE_BYTES } from './pipes.ts';
import type { OutputWay } from './taken.ts';
import { Unread } from './unread.ts';

/**
 * What is read in one piece. Small, since what comes in larger amounts is moved without being read. One for all: a piece is
 * dealt with before anything else is read.
 */
const piece = Buffer.allocUnsafeSlow(4096);
/** What one stream may move before others have their turn. */
const TURN_BYTES = 16 * PIPE_BYTES;

/**
 * Carries a process's output from its pipe into a client's FIFO.
 *
 * Node tells when the pipe has something to read, and reads a first piece; once that is in the FIFO, the kernel moves the
 * rest over, so that a flood of output costs neither copies nor memory. When nothing is left to move, or nothing fits,
 * Node waits again: for the next piece to come, or for it to fit.
 *
 * INVARIANTS
 * - Bytes are moved only when none that were read wait to be written: their order is kept.
 * - No more than one piece is ever held here.
 * - A target that fails loses the rest, but the source is read to its end: the process must not stop for that.
 */
export class Flow implements OutputWay {
  /** Settles when the FIFO has everything, or at `close`. */
  readonly done: Promise<void>;
  readonly #from: number;
  readonly #to: number;
  #source: Socket | undefined;
  #target: Socket | undefined;
  #ended = false;
  #waits = false;
  readonly #unread: Unread;
  /** Bytes of a piece that the FIFO had no room for. */
  #rest = 0;
  #closed = false;
  #lost = false;
  #settle: () => void = () => undefined;

  /** Takes both descriptors over. */
  constructor(from: number, to: number) {
    this.#from = from;
    this.#to = to;
    this.#unread = new Unread(to);
    this.done = new Promise((resolve) => (this.#settle = resolve));
  }

  start(): void {
    if (this.#closed || this.#source !== undefined) return;
    const source = new Socket({
      fd: this.#from,
      readable: true,
      writable: false,
      onread: { buffer: piece, callback: (length) => this.#take(length) },
    });
    this.#source = source;
    source.on('error', () => undefined);
    source.once('close', () => this.#end());
  }

  pending(): number {
    if (this.#lost || this.#source === undefined) return 0;
    if (this.#closed) return this.#unread.bytes;
    if (this.#source.destroyed) return this.#rest + this.#unread.bytes;
    // What was read before goes first. A process that lives on may write without end.
    let room = TURN_BYTES;
    if (!this.#waits)
      for (let moved = 1; moved > 0 && room > 0; room -= moved)
        moved = splice(this.#from, this.#to, PIPE_BYTES);
    return bytesWaiting(this.#from) + this.#rest + this.#unread.bytes;
  }

  /** Nobody asks any more what is pending. */
  told(): void {
    if (this.#closed) this.#unread.close();
  }

  /** Lets go of both at once. */
  close(): void {
    this.#letGo();
    this.#unread.close();
  }

  #letGo(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#source === undefined) closeQuietly(this.#from);
    else this.#source.destroy();
    if (this.#target === undefined) closeQuietly(this.#to);
    else this.#target.destroy();
    this.#settle();
  }

  /** A piece has come. @returns whether to go on reading at once */
  #take(length: number): boolean {
    const written = this.#write(piece.subarray(0, length));
    if (written < length) {
      this.#await(Buffer.from(piece.subarray(written, length)));
      return false;
    }
    return this.#move();
  }

  /** @returns whether to go on reading: false where it is not yet this stream's turn again */
  #move(): boolean {
    if (this.#lost) return true;
    for (let moved = 0; moved < TURN_BYTES;) {
      const now = splice(this.#from, this.#to, PIPE_BYTES);
      if (now === 0) return true;
      moved += now;
    }
    this.#waits = true;
    setImmediate(() => this.#continue());
    return false;
  }

  /** The FIFO is full: Node waits until the rest is in it. */
  #await(rest: Buffer): void {
    this.#waits = true;
    this.#rest = rest.length;
    this.#target ??= this.#openTarget();
    this.#target.write(rest, () => {
      this.#rest = 0;
      this.#continue();
    });
  }

  #continue(): void {
    this.#waits = false;
    if (this.#closed) return;
    if (this.#ended) this.#finish();
    else if (this.#move()) this.#source?.resume();
  }

  #end(): void {
    this.#ended = true;
    if (!this.#waits) this.#finish();
  }

  /** The FIFO has all, and gets its end; the client may not have read it yet. */
  #finish(): void {
    this.#unread.end();
    this.#letGo();
  }

  #openTarget(): Socket {
    const target = new Socket({ fd: this.#to, readable: false, writable: true });
    target.on('error', () => (this.#lost = true)); // and the write calls back, with the error
    return target;
  }

  #write(bytes: Buffer): number {
    if (this.#lost) return bytes.length;
    try {
      return writeSync(this.#to, bytes);
    } catch (error) {
      if (hasErrno(error, 'EAGAIN')) return 0;
      this.#lost = true;
      return bytes.length;
    }
  }
}
