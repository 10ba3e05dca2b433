import { statSync } from 'node:fs';
import { closeQuietly } from './descriptor.ts';
import { sealedCopy } from './sealed-copy.ts';

/** Of each a few megabytes. A client can name any number of programs. */
const MOST = 4;

interface Copy {
  /** Tells one file from another that takes its place. */
  readonly stamp: string;
  /** Undefined until it is made, and for ever where it cannot be. */
  fd: number | undefined;
}

/**
 * Sealed copies in memory of programs that would else protect themselves from their containers by a copy or a mount of their own, and a
 * second execve, at each call: crun does (src/libcrun/cloned_binary.c there), which costs as much as the rest of a `start`. It
 * takes a sealed one for what it is. Copies of those that were used last are kept.
 */
export class ProgramCopies {
  readonly #copies = new Map<string, Copy>();

  /**
   * Where to start the program: its copy, or itself as long as there is none. A program that was replaced is copied anew.
   * @param path absolute
   */
  of(path: string): string {
    const stamp = stampOf(path);
    let copy = this.#copies.get(path);
    this.#copies.delete(path); // and comes last now
    if (copy?.stamp !== stamp) {
      if (copy?.fd !== undefined) closeQuietly(copy.fd);
      copy = { stamp, fd: undefined };
      void this.#make(path, copy);
    }
    this.#copies.set(path, copy);
    for (const [other, { fd }] of this.#copies) {
      if (this.#copies.size <= MOST) break;
      if (fd !== undefined) closeQuietly(fd);
      this.#copies.delete(other);
    }
    return copy.fd === undefined ? path : `/proc/self/fd/${copy.fd}`;
  }

  /** In the background: nobody waits for it. */
  async #make(path: string, copy: Copy): Promise<void> {
    const fd = await sealedCopy(path).catch(() => undefined);
    // Replaced meanwhile, perhaps in the middle of the copying.
    if (fd !== undefined && (this.#copies.get(path) !== copy || stampOf(path) !== copy.stamp))
      closeQuietly(fd);
    else copy.fd = fd;
  }
}

function stampOf(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true });
  return stat === undefined ? 'gone' : `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`;
}
