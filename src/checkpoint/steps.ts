import type { Logger } from '../log.ts';
import { messageOf } from '../errors.ts';

/**
 * A change made of several steps, each with its undo. `commit` makes it final; leaving without it undoes
 * what was done, last step first. An undo that fails is logged and does not stop the others: what it left
 * is swept at the next start.
 */
export class Steps {
  readonly #undos: { what: string; undo: () => Promise<void> }[] = [];
  readonly #log: Logger;
  #committed = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Registers the undo of a step that is about to be made, or has just been made. */
  undo(what: string, undo: () => Promise<void>): void {
    this.#undos.push({ what, undo });
  }

  commit(): void {
    this.#committed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#committed) return;
    for (const { what, undo } of this.#undos.reverse()) {
      try {
        await undo();
      } catch (error) {
        this.#log.error('undo failed; the next start sweeps it', { what, error: messageOf(error) });
      }
    }
  }
}
