import type { Logger } from '../log.ts';
import { messageOf } from '../errors.ts';

/** A step that could not be undone. */
export interface UndoFailure {
  readonly what: string;
  readonly error: unknown;
}

/**
 * A change made of several steps, each with its undo. `commit` makes it final; leaving without it undoes
 * what was done, last step first. An undo that fails is logged and does not stop the others: what it left
 * is swept later.
 */
export class Steps {
  readonly #undos: { what: string; undo: () => Promise<void> }[] = [];
  readonly #log: Logger;
  readonly #run: (undo: () => Promise<void>) => Promise<void>;
  #committed = false;

  /** `run` runs an undo, and may run it several times (see untilBack). */
  constructor(log: Logger, run: (undo: () => Promise<void>) => Promise<void> = async (undo) => undo()) {
    this.#log = log;
    this.#run = run;
  }

  /** Registers the undo of a step that is about to be made, or has just been made. */
  undo(what: string, undo: () => Promise<void>): void {
    this.#undos.push({ what, undo });
  }

  commit(): void {
    this.#committed = true;
  }

  /** Undoes what was done; a second time there is nothing left of it. @returns what could not be undone */
  async rollBack(): Promise<UndoFailure[]> {
    const failures: UndoFailure[] = [];
    if (this.#committed) return failures;
    for (const { what, undo } of this.#undos.splice(0).reverse()) {
      try {
        await this.#run(undo);
      } catch (error) {
        failures.push({ what, error });
        this.#log.error('undo failed', { what, error: messageOf(error) });
      }
    }
    return failures;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rollBack();
  }
}
