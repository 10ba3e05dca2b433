import { writeSync } from 'node:fs';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { takeDescriptor, withPidFd } from '../../src/sys/pidfd.ts';

/** Names of the bundles' log FIFOs begin so; what the guard itself has to say goes there. */
export const LOG = 'log/';

/** Other names of the worker's descriptors, which outlive it: pipes, terminals, FIFOs. */
export class Held {
  readonly #fds: Map<string, number>;

  /** @param entries what the program before this one has held */
  constructor(entries: readonly (readonly [name: string, fd: number])[] = []) {
    this.#fds = new Map(entries);
  }

  get entries(): (readonly [name: string, fd: number])[] {
    return [...this.#fds];
  }

  /** @throws SysError where the worker does not have it (any more) */
  hold(worker: number, name: string, fd: number): void {
    this.keep(
      name,
      withPidFd(worker, (pidFd) => takeDescriptor(pidFd, fd)),
    );
  }

  /** One of this process's own. */
  keep(name: string, taken: number): void {
    this.drop(name); // now, so that a FIFO that is opened anew never is without us
    this.#fds.set(name, taken);
  }

  drop(name: string): void {
    const fd = this.#fds.get(name);
    if (fd !== undefined) closeQuietly(fd);
    this.#fds.delete(name);
  }

  /** A line for containerd's log. Never blocks: the worker opened the FIFO so; a line that does not fit is lost. */
  log(line: string): void {
    const fd = this.entries.filter(([name]) => name.startsWith(LOG)).at(-1)?.[1];
    if (fd === undefined) return;
    try {
      writeSync(fd, line);
    } catch {
      // Full, or nobody reads.
    }
  }
}
