import { writeSync } from 'node:fs';
import { Writable } from 'node:stream';
import { hasErrno } from '../../src/errors.ts';

/** Pauses while the terminal takes nothing, in milliseconds: the first, and the longest. */
const FIRST_PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 100;

/**
 * Writes to the master of a terminal, and never waits in the kernel for a program that does not read: libuv would, on the shim's one
 * thread, as it cannot open a master anew to write to it in another way (uv_tty_init). So the descriptor must not wait (see
 * doNotWait), and what it does not take now is tried again a little later.
 */
export class TerminalInput extends Writable {
  readonly #fd: () => number;
  #pauseMs = FIRST_PAUSE_MS;
  #timer: NodeJS.Timeout | undefined;

  /** @param fd the descriptor, negative once it is closed: then what comes is dropped */
  constructor(fd: () => number) {
    super();
    this.#fd = fd;
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: () => void): void {
    const fd = this.#fd();
    if (fd < 0) return done();
    let taken = 0;
    try {
      taken = writeSync(fd, chunk);
    } catch (error) {
      if (!hasErrno(error, 'EAGAIN')) return done(); // its other end is closed
    }
    if (taken === chunk.length) return done();
    this.#pauseMs = taken > 0 ? FIRST_PAUSE_MS : Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    this.#timer = setTimeout(() => this._write(chunk.subarray(taken), encoding, done), this.#pauseMs);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearTimeout(this.#timer);
    done(error);
  }
}
