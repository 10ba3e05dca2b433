import type { ExitNote } from '../guard/messages.ts';
import { ChildReaper, type Exit, type Expectation, type Reaper } from '../reaper/reaper.ts';

/**
 * Hears of ends from the guard, which reaps what is left to it; this process's own children it reaps itself.
 *
 * INVARIANTS
 * - Each end is handed over at most once here. Those that nobody claimed are forgotten, by the guard too, when no expectation is
 *   open; the others stay with the guard until `forget`, as the worker that follows may have to be told of them.
 */
export class GuardedReaper implements Reaper {
  readonly #own = new ChildReaper().start();
  readonly #watched = new Map<number, (exit: Exit) => void>();
  readonly #early = new Map<number, Exit>();
  readonly #forget: (pids: readonly number[]) => void;
  #expectations = 0;

  constructor(forget: (pids: readonly number[]) => void) {
    this.#forget = forget;
  }

  /** From the guard. */
  ended(note: ExitNote): void {
    const { pid, status, signal, seconds, nanos } = note;
    const at = { seconds: BigInt(seconds), nanos };
    const exit = { pid, status, ...(signal === undefined ? {} : { signal }), at };
    const onExit = this.#watched.get(pid);
    if (onExit !== undefined) {
      this.#watched.delete(pid);
      onExit(exit);
    } else if (this.#expectations > 0) {
      this.#early.set(pid, exit);
    } else {
      this.#forget([pid]);
    }
  }

  expect(): Expectation {
    this.#expectations++;
    let open = true;
    return {
      claim: (pid, onExit) => {
        const early = this.#early.get(pid);
        this.#early.delete(pid);
        if (early === undefined) this.#watched.set(pid, onExit);
        else setImmediate(onExit, early);
      },
      close: () => {
        if (!open) return;
        open = false;
        if (--this.#expectations > 0 || this.#early.size === 0) return;
        this.#forget([...this.#early.keys()]);
        this.#early.clear();
      },
    };
  }

  child(pid: number, onExit: (exit: Exit) => void): void {
    this.#own.child(pid, onExit);
  }

  forget(pid: number): void {
    this.#forget([pid]);
  }

  stop(): void {
    this.#own.stop();
  }
}
