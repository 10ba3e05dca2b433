import { constants, fstatSync, openSync } from 'node:fs';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { bytesWaiting } from '../../src/sys/waiting.ts';

const { O_RDONLY, O_NONBLOCK } = constants;

/** How much of what is in a client's FIFO the client has not read, also after the FIFO was given its end. */
export class Unread {
  readonly #isFifo: boolean;
  #fd: number;
  #ended = false;

  /** @param fd where output goes; closed by the caller, after `end` or `close` */
  constructor(fd: number) {
    this.#fd = fd;
    this.#isFifo = fstatSync(fd).isFIFO();
  }

  get bytes(): number {
    return this.#fd >= 0 && this.#isFifo ? bytesWaiting(this.#fd) : 0;
  }

  /** The FIFO is about to be closed. From now on it is seen by a reader's end, which keeps no reader from meeting the end. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#fd = this.bytes > 0 ? openToLook(this.#fd) : -1;
  }

  /** Nobody asks any more. */
  close(): void {
    if (this.#ended) closeQuietly(this.#fd);
    this.#ended = true;
    this.#fd = -1;
  }
}

/** @returns -1 where there is none to be had */
function openToLook(fd: number): number {
  try {
    return openSync(`/proc/self/fd/${fd}`, O_RDONLY | O_NONBLOCK);
  } catch {
    return -1; // too many open files
  }
}
