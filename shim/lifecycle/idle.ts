import { setTimeout as sleep } from 'node:timers/promises';
import type { Lifecycle } from '../service/task-service.ts';

/** How long a shim goes on listening after it took its announcement back: its address may just have been given out. */
const GRACE_MS = 1000;

export interface IdleOptions {
  /** Milliseconds without a container after which a shared shim leaves. */
  readonly timeoutMs: number;
  /** Whether other containers may come. One that serves a single container leaves when it is told to. */
  readonly shared: boolean;
  readonly isIdle: () => boolean;
  readonly announce: () => Promise<void>;
  readonly retract: () => Promise<void>;
}

/**
 * Decides when the shim leaves.
 *
 * INVARIANTS
 * - A shim with containers, or with one that is coming, stays.
 * - A shared shim takes its announcement back first, and stays after all if work came in the grace time.
 */
export class IdleTimer implements Lifecycle {
  readonly #options: IdleOptions;
  readonly #left: Promise<void>;
  #leave: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: IdleOptions) {
    this.#options = options;
    this.#left = new Promise((resolve) => {
      this.#leave = () => {
        clearTimeout(this.#timer); // it would keep the process until its time
        resolve();
      };
    });
    this.idle();
  }

  /** Settles when it is time to go. */
  get left(): Promise<void> {
    return this.#left;
  }

  busy(): void {
    clearTimeout(this.#timer);
  }

  /** Starts to count, if there is nothing to do. */
  idle(): void {
    clearTimeout(this.#timer);
    if (this.#options.isIdle()) this.#timer = setTimeout(() => void this.#expire(), this.#options.timeoutMs);
  }

  leave(): void {
    if (this.#options.shared || !this.#options.isIdle()) this.idle();
    else this.#leave();
  }

  /**
   * SIGTERM: goes at once when there is nothing to do, and takes no notice otherwise, as containers outlive us badly.
   * @returns whether it goes
   */
  terminate(): boolean {
    const goes = this.#options.isIdle();
    if (goes) this.#leave();
    return goes;
  }

  async #expire(): Promise<void> {
    await this.#options.retract();
    await sleep(GRACE_MS);
    if (this.#options.isIdle()) this.#leave();
    else await this.#options.announce();
  }
}
