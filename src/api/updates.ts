/** Messages pushed by a running operation, as the stream that its client reads. */
export class Updates<T> implements AsyncIterable<T> {
  readonly #queue: T[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  #error: unknown;

  push(message: T): void {
    this.#queue.push(message);
    this.#wake?.();
  }

  /** Ends the stream, after what was pushed; with an error where the operation failed. */
  end(error?: unknown): void {
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const next = this.#queue.shift();
      if (next !== undefined) yield next;
      else if (this.#ended) break;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#error !== undefined) throw this.#error as Error;
  }
}

/** Runs an operation and streams what it pushes. The operation goes on to its end even if nobody reads any more. */
export function streaming<T>(operation: (updates: Updates<T>) => Promise<void>): AsyncIterable<T> {
  const updates = new Updates<T>();
  operation(updates).then(
    () => updates.end(),
    (error: unknown) => updates.end(error),
  );
  return updates;
}
