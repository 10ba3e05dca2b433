import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { closeQuietly } from '../../src/sys/descriptor.ts';

const { O_RDWR, O_NONBLOCK } = constants;

/**
 * Where the shim's log goes: the `log` FIFO of each bundle, which containerd reads for as long as the task lives. A line
 * that belongs to no container goes to the newest. Writing never blocks: a line that does not fit is lost.
 */
export class LogSink {
  readonly #fifos = new Map<string, number>();

  /** Opens a bundle's FIFO; containerd may be away, so both ends. */
  open(id: string, bundle: string): void {
    this.close(id);
    try {
      this.#fifos.set(id, openSync(`${bundle}/log`, O_RDWR | O_NONBLOCK));
    } catch {
      // No containerd made this bundle.
    }
  }

  close(id: string): void {
    const fd = this.#fifos.get(id);
    if (fd !== undefined) closeQuietly(fd);
    this.#fifos.delete(id);
  }

  write(line: string): void {
    const id = / id=(\S+)/.exec(line)?.[1] ?? '';
    const fd = this.#fifos.get(id) ?? [...this.#fifos.values()].at(-1);
    if (fd === undefined) return;
    try {
      writeSync(fd, line);
    } catch {
      // Full, or nobody reads.
    }
  }

  closeAll(): void {
    for (const fd of this.#fifos.values()) closeSync(fd);
    this.#fifos.clear();
  }
}
