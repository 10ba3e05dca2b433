import { readdirSync, readlinkSync } from 'node:fs';
import { closeQuietly } from '../sys/descriptor.ts';
import { isSameFile, takeDescriptor, withPidFd } from '../sys/pidfd.ts';
import { wakeFaults } from '../sys/userfault.ts';

/** What a descriptor of userfaultfd(2) is called in /proc/PID/fd. */
const userfault = /^anon_inode:\[userfaultfd\]$/;

/**
 * A page server's userfaultfds, held open a second time. When the last descriptor of one is closed the kernel lets the tasks
 * go on, with zeros in place of the pages that are missing: a server that is killed would silently destroy their memory.
 * With these they wait instead, and can be ended.
 *
 * INVARIANTS
 * - One that a living server has closed is done with (its process has all its memory, or has ended) and is closed here too,
 *   or the process's next fault would wait for ever.
 * - Of a server that is ending nothing is closed here: only `close` does that.
 */
export class HeldFaults {
  readonly #server: number;
  /** By the number that the server knows it by. */
  readonly #held = new Map<number, number>();

  /** @param server pid of the page server, a child of this process that is not reaped while `update` is called */
  constructor(server: number) {
    this.#server = server;
  }

  get size(): number {
    return this.#held.size;
  }

  /** Follows what the server has opened and closed since. Never throws: what cannot be held is not. */
  update(): void {
    const open = this.#list();
    if (open === undefined) return;
    for (const [fd, own] of this.#held) {
      if (open.includes(fd) && isSameFile(own, this.#server, fd)) continue;
      // A process that ends has its descriptors taken away all at once, from under a listing too.
      if (!this.#isAlive()) return;
      closeQuietly(own);
      this.#held.delete(fd);
    }
    const missing = open.filter((fd) => !this.#held.has(fd));
    if (missing.length > 0) this.#take(missing);
  }

  /**
   * Has whoever waits for a page ask for it again. Of a process that forks the kernel takes no page meanwhile (EAGAIN), and CRIU's
   * server forgets then that it was asked for it.
   */
  askAgain(): void {
    for (const own of this.#held.values()) {
      try {
        wakeFaults(own);
      } catch {
        // Its process has ended.
      }
    }
  }

  /** Lets go of all. Tasks that still wait go on with zeros: only when there is nothing missing, or nobody left. */
  close(): void {
    for (const own of this.#held.values()) closeQuietly(own);
    this.#held.clear();
  }

  #take(fds: readonly number[]): void {
    try {
      withPidFd(this.#server, (pidFd) => {
        for (const fd of fds) this.#held.set(fd, takeDescriptor(pidFd, fd));
      });
    } catch {
      // It has closed it or ended in this moment.
    }
  }

  /** The server's userfaultfds; undefined where it is ending. */
  #list(): number[] | undefined {
    const folder = `/proc/${this.#server}/fd`;
    try {
      return readdirSync(folder)
        .filter((name) => isUserfault(`${folder}/${name}`))
        .map(Number);
    } catch {
      return undefined;
    }
  }

  #isAlive(): boolean {
    try {
      return readdirSync(`/proc/${this.#server}/fd`).length > 0;
    } catch {
      return false;
    }
  }
}

function isUserfault(path: string): boolean {
  try {
    return userfault.test(readlinkSync(path));
  } catch {
    return false; // closed meanwhile
  }
}
