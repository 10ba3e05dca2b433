import type { Gates } from './instant-plan.ts';

/**
 * The gates at which the containers of a set wait for each other.
 *
 * INVARIANTS
 * - `snapshot` runs while all of them stand still, and never twice at once.
 * - A gate opens when all have come to it, and not before `snapshot` has succeeded where it is the second.
 * - After `fail` none opens: whoever waits, or comes, gets that error.
 */
export class Rendezvous implements Gates {
  readonly #snapshot: (again: boolean) => Promise<void>;
  readonly #ready: Barrier;
  readonly #still: Barrier;
  readonly #synced: Barrier;
  readonly #dumped: Barrier;
  readonly #failed = new AbortController();
  /** The snapshot under way, or the last one made. */
  #snapshotted: Promise<void> | undefined;

  /** @param snapshot of all disks; `again` where one of the containers ran on after the first, which is to be replaced */
  constructor(count: number, snapshot: (again: boolean) => Promise<void>) {
    this.#snapshot = snapshot;
    this.#ready = new Barrier(count);
    this.#still = new Barrier(count);
    this.#synced = new Barrier(count);
    this.#dumped = new Barrier(count);
  }

  /** Aborts when one of them has failed. */
  get failed(): AbortSignal {
    return this.#failed.signal;
  }

  ready(): Promise<void> {
    return this.#ready.come();
  }

  still(): Promise<void> {
    return this.#still.come();
  }

  /** Where all have passed already, the one that comes again is the only one that has run meanwhile. */
  async synced(): Promise<void> {
    const again = this.#synced.isOpen;
    await this.#synced.come();
    if (again || this.#snapshotted === undefined) {
      const before = this.#snapshotted ?? Promise.resolve();
      this.#snapshotted = before.then(() => this.#snapshot(again));
    }
    await this.#snapshotted;
  }

  dumped(): Promise<void> {
    return this.#dumped.come();
  }

  fail(error: unknown): void {
    if (this.#failed.signal.aborted) return;
    for (const barrier of [this.#ready, this.#still, this.#synced, this.#dumped]) barrier.fail(error);
    this.#failed.abort(error);
  }
}

/** Holds whoever comes until all have. */
export class Barrier {
  #missing: number;
  #error: { readonly error: unknown } | undefined;
  readonly #all = Promise.withResolvers<void>();

  constructor(count: number) {
    this.#missing = count;
    this.#all.promise.catch(() => undefined); // nobody may be waiting
  }

  get isOpen(): boolean {
    return this.#missing <= 0;
  }

  async come(): Promise<void> {
    if (this.#error !== undefined) throw this.#error.error;
    if (--this.#missing <= 0) this.#all.resolve();
    return this.#all.promise;
  }

  fail(error: unknown): void {
    this.#error = { error };
    this.#all.reject(error);
  }
}
