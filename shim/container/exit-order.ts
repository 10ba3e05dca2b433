import { FailedPrecondition } from '../../src/errors.ts';
import type { Exit } from '../reaper/reaper.ts';

/**
 * Brings the ends of a container's processes into the order that clients rely on.
 *
 * INVARIANTS
 * - The first process's end is handled after its start was announced, and after the ends of all execs.
 * - No exec starts once the first process has ended.
 */
export class ExitOrder {
  readonly #endInit: (exit: Exit) => void;
  #execs = 0;
  #holds = false;
  #exit: Exit | undefined;
  #gone = false;
  #done = false;

  /** @param endInit handles the first process's end, once */
  constructor(endInit: (exit: Exit) => void) {
    this.#endInit = endInit;
  }

  /** The first process is about to be started: its end waits until `announced`. */
  starting(): void {
    this.#holds = true;
  }

  announced(): void {
    this.#holds = false;
    this.#settle();
  }

  /** The first process is gone, and its container's others are being ended. */
  initGone(): void {
    this.#gone = true;
  }

  initEnded(exit: Exit): void {
    this.#gone = true;
    this.#exit = exit;
    this.#settle();
  }

  /** @throws FailedPrecondition after the first process has ended */
  execStarting(containerId: string): void {
    if (this.#gone) {
      throw new FailedPrecondition(`container ${containerId} init process is not running`, {
        subject: containerId,
      });
    }
    this.#execs++;
  }

  /** An exec has ended, or could not be started. */
  execEnded(): void {
    this.#execs--;
    this.#settle();
  }

  #settle(): void {
    if (this.#exit === undefined || this.#holds || this.#execs > 0 || this.#done) return;
    this.#done = true;
    this.#endInit(this.#exit);
  }
}
