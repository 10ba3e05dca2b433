import { closeQuietly } from '../../src/sys/descriptor.ts';
import type { Kept } from './keeper.ts';

/** Of one process's streams, by what each is for. */
export type StreamName =
  'in' | 'in-end' | 'in-to' | 'out' | 'out-to' | 'err' | 'err-to' | 'tty' | 'mid' | 'mid-to' | 'start';

const all: readonly StreamName[] = [
  'in',
  'in-end',
  'in-to',
  'out',
  'out-to',
  'err',
  'err-to',
  'tty',
  'mid',
  'mid-to',
  'start', // the runtime's FIFO, at which a created container waits
];

/** Ends of the client's FIFOs. */
const toClient: readonly StreamName[] = ['in', 'in-end', 'out-to', 'err-to'];

/** A process's descriptors that outlive this process. */
export class KeptFds {
  readonly #kept: Kept;
  readonly #fds = new Map<StreamName, number>();

  constructor(kept: Kept) {
    this.#kept = kept;
  }

  /** Has the keeper keep them, all at once. Ours are closed by `close` whatever becomes of that. */
  async add(fds: Partial<Readonly<Record<StreamName, number>>>): Promise<void> {
    const entries = Object.entries(fds) as [StreamName, number][];
    for (const [name, fd] of entries) this.#fds.set(name, fd);
    await Promise.all(entries.map(([name, fd]) => this.#kept.keeper.hold(this.#kept.prefix + name, fd)));
  }

  /** Opens what leads to the client, whose other end takes our end for the process's: it is kept from its first moment. */
  async open(name: StreamName, path: string, flags: number): Promise<number> {
    const fd = await this.#kept.keeper.open(this.#kept.prefix + name, path, flags);
    this.#fds.set(name, fd);
    return fd;
  }

  /** Takes what the process before this one has left. */
  takeAll(): void {
    for (const name of all) {
      const fd = this.#kept.keeper.take(this.#kept.prefix + name);
      if (fd !== undefined) this.#fds.set(name, fd);
    }
  }

  get(name: StreamName): number | undefined {
    return this.#fds.get(name);
  }

  close(...names: StreamName[]): void {
    const ours = names.filter((name) => this.#fds.has(name));
    for (const name of ours) {
      const fd = this.#fds.get(name) ?? -1;
      this.#fds.delete(name);
      this.#kept.readiness.forget(fd);
      closeQuietly(fd);
    }
    if (ours.length > 0) this.#kept.keeper.drop(ours.map((name) => this.#kept.prefix + name));
  }

  closeAll(): void {
    this.close(...all);
  }

  /** Closes all, but has the keeper go on keeping what leads to the client, who would take the end for the process's. */
  closeAllButClient(): void {
    this.close(...all.filter((name) => !toClient.includes(name)));
    for (const fd of this.#fds.values()) {
      this.#kept.readiness.forget(fd);
      closeQuietly(fd);
    }
    this.#fds.clear();
  }
}
