/**
 * Steps that can be taken back. Each step that succeeded leaves its undo here; unless `commit` was called, `rollback` runs
 * them, the last first. One that fails does not keep the others from running.
 */
export class UndoStack {
  readonly #undos: { what: string; undo: () => Promise<void> }[] = [];
  #committed = false;

  push(what: string, undo: () => Promise<void>): void {
    this.#undos.push({ what, undo });
  }

  /** From here on nothing is taken back. */
  commit(): void {
    this.#committed = true;
  }

  /** @returns what could not be taken back, and why; empty after `commit` */
  async rollback(): Promise<{ what: string; error: unknown }[]> {
    const failures: { what: string; error: unknown }[] = [];
    if (this.#committed) return failures;
    for (const { what, undo } of this.#undos.splice(0).reverse()) {
      try {
        await undo();
      } catch (error) {
        failures.push({ what, error });
      }
    }
    return failures;
  }
}
