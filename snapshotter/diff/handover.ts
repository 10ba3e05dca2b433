import { Cancelled } from '../../src/errors.ts';

/** Hands pieces from one that pushes to one that pulls; who pushes waits until his piece is taken. */
export class Handover<T> implements AsyncIterable<T> {
  readonly #pieces: { readonly piece: T; readonly taken: PromiseWithResolvers<void> }[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  #failure: Error | undefined;

  /** @throws Cancelled where nobody takes pieces any more */
  put(piece: T): Promise<void> {
    if (this.#ended) return Promise.reject(new Cancelled('nobody takes what was made'));
    const taken = Promise.withResolvers<void>();
    this.#pieces.push({ piece, taken });
    this.#wake?.();
    return taken.promise;
  }

  /** After the last piece, or in the place of more. */
  end(failure?: Error): void {
    this.#ended = true;
    this.#failure ??= failure;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    try {
      for (;;) {
        if (this.#failure !== undefined) throw this.#failure;
        const next = this.#pieces.shift();
        if (next !== undefined) {
          next.taken.resolve();
          yield next.piece;
        } else if (this.#ended) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.close();
    }
  }

  /** Says that nobody takes pieces any more: who waits with one is told. */
  close(): void {
    this.#ended = true;
    for (const { taken } of this.#pieces.splice(0)) taken.reject(new Cancelled('nobody takes what was made'));
  }
}
