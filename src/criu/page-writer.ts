// Parts of pages files, one after the other into a new one.
import type { FileHandle } from 'node:fs/promises';

const CHUNK = 1 << 20;

/** Copies in pieces of 1 MiB, between which others have their turn. `flush` writes what is left at the end. */
export class PageWriter {
  readonly #target: FileHandle;
  readonly #signal: AbortSignal | undefined;
  readonly #chunk = Buffer.allocUnsafe(CHUNK);
  #filled = 0;
  /** Bytes, without those that `flush` would write now. */
  written = 0;

  /** @param target empty, and open for writing */
  constructor(target: FileHandle, signal: AbortSignal | undefined) {
    this.#target = target;
    this.#signal = signal;
  }

  /**
   * Copies the bytes from `from` up to `to`.
   * @returns whether the source had all of them
   * @throws what the file system throws; the signal's reason
   */
  async copy(source: FileHandle, from: number, to: number): Promise<boolean> {
    for (let at = from; at < to;) {
      const room = Math.min(CHUNK - this.#filled, to - at);
      const { bytesRead } = await source.read(this.#chunk, this.#filled, room, at);
      if (bytesRead === 0) return false;
      at += bytesRead;
      this.#filled += bytesRead;
      if (this.#filled === CHUNK) await this.flush();
    }
    return true;
  }

  async flush(): Promise<void> {
    this.#signal?.throwIfAborted();
    for (let at = 0; at < this.#filled;) {
      const { bytesWritten } = await this.#target.write(this.#chunk, at, this.#filled - at, this.written);
      at += bytesWritten;
      this.written += bytesWritten;
    }
    this.#filled = 0;
  }
}
