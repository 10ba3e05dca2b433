import { closeSync, fstatSync, writeSync } from 'node:fs';
import { hasErrno } from '../errors.ts';
import type { Output } from './host.ts';

/** Their major number, mem(4). */
const MEMORY_DEVICES = 1;

/** What is used of Node's stream of a descriptor. */
export interface OutputStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly errored: Error | null;
  write(text: string | Uint8Array, done?: () => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  destroy(): unknown;
}

/** Whether a device may be a terminal, for which Node's stream is needed: not one of memory, as /dev/null is. */
export function isTerminalLike(fd: number): boolean {
  const about = fstatSync(fd);
  return about.isCharacterDevice() && about.rdev >> 8 !== MEMORY_DEVICES;
}

/**
 * Standard output or error of a short-lived program. Node's own stream takes some milliseconds to come about, which only a
 * terminal needs, and whoever does not read a pipe as fast as it is written to when somebody has made that non-blocking.
 */
export class StandardOutput implements Output {
  readonly #fd: number;
  readonly #open: () => OutputStream;
  readonly #failed: (error: NodeJS.ErrnoException) => void;
  #stream: OutputStream | undefined;

  /**
   * @param open Node's stream
   * @param failed told that text was not written
   */
  constructor(fd: number, open: () => OutputStream, failed: (error: NodeJS.ErrnoException) => void) {
    this.#fd = fd;
    this.#open = open;
    this.#failed = failed;
    if (isTerminalLike(fd)) this.#streaming();
  }

  get isTTY(): boolean {
    return this.#stream?.isTTY === true;
  }

  get columns(): number | undefined {
    return this.#stream?.columns;
  }

  write(text: string): void {
    if (this.#stream !== undefined) {
      this.#stream.write(text);
      return;
    }
    let rest = Buffer.from(text);
    try {
      while (rest.length > 0) rest = rest.subarray(writeSync(this.#fd, rest));
    } catch (error) {
      if (hasErrno(error, 'EAGAIN')) this.#streaming().write(rest);
      else this.#failed(error as NodeJS.ErrnoException);
    }
  }

  /** Calls back when all that was written has gone out, or cannot. */
  end(done: () => void): void {
    const stream = this.#stream;
    if (stream === undefined) {
      done();
      return;
    }
    stream.write('', () => {
      if (stream.errored !== null) this.#failed(stream.errored);
      done();
    });
  }

  /** Closes the descriptor. */
  close(): void {
    if (this.#stream === undefined) closeSync(this.#fd);
    else this.#stream.destroy();
  }

  #streaming(): OutputStream {
    if (this.#stream === undefined) {
      this.#stream = this.#open();
      this.#stream.on('error', this.#failed);
    }
    return this.#stream;
  }
}
