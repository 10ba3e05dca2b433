/**
 * Orders what happens to one container.
 *
 * INVARIANTS
 * - An exclusive job runs alone; shared jobs run beside each other.
 * - Jobs start in the order they came, so no kind starves the other.
 * - A job must not wait for another job of the same queue: it would wait for ever.
 */
export class Queue {
  /** Settles when every job so far has. */
  #all: Promise<void> = Promise.resolve();
  /** Settles when the last exclusive job so far has. */
  #exclusive: Promise<void> = Promise.resolve();

  /** Runs a job when all earlier ones have ended. */
  run<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#all.then(job);
    this.#all = this.#exclusive = settled(result);
    return result;
  }

  /** Runs a job when the earlier exclusive ones have ended. */
  share<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#exclusive.then(job);
    this.#all = Promise.all([this.#all, settled(result)]).then(() => undefined);
    return result;
  }
}

function settled(promise: Promise<unknown>): Promise<void> {
  return promise.then(
    () => undefined,
    () => undefined,
  );
}
