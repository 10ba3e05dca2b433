import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { LOG } from '../guard/held.ts';
import type { Keeper } from '../stdio/keeper.ts';

const { O_RDWR, O_NONBLOCK } = constants;

/**
 * Where the shim's log goes: the `log` FIFO of each bundle, which containerd reads for as long as the task lives. A line
 * that belongs to no container goes to the newest. Writing never blocks: a line that does not fit is lost.
 */
export class LogSink {
  readonly #fifos = new Map<string, number>();
  readonly #keeper: Keeper | undefined;

  /** @param keeper keeps them open while this process is replaced: containerd stops to read at their end */
  constructor(keeper?: Keeper) {
    this.#keeper = keeper;
  }

  /** Opens a bundle's FIFO; containerd may be away, so both ends. */
  open(id: string, bundle: string): void {
    this.close(id);
    try {
      const fd = openSync(`${bundle}/log`, O_RDWR | O_NONBLOCK);
      this.#fifos.set(id, fd);
      void this.#keeper?.hold(LOG + id, fd).catch(() => undefined);
    } catch {
      // No containerd made this bundle.
    }
  }

  close(id: string): void {
    const fd = this.#fifos.get(id);
    if (fd === undefined) return;
    closeQuietly(fd);
    this.#keeper?.drop([LOG + id]);
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
