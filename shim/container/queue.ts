/**
 * Orders what happens to one container.
 *
 * INVARIANTS
 * - An exclusive job runs alone; shared jobs run beside each other, `MAX_SHARED` of them at most.
 * - Jobs start in the order they came, so no kind starves the other.
 * - A job must not wait for another job of the same queue: it would wait for ever.
 */
export class Queue {
  /** Settles when every job so far has. */
  #all: Promise<void> = Promise.resolve();
  /** Settles when the last exclusive job so far has. */
  #exclusive: Promise<void> = Promise.resolve();
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  /** Runs a job when all earlier ones have ended. */
  run<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#all.then(job);
    this.#all = this.#exclusive = settled(result);
    return result;
  }

  /** Runs a job when the earlier exclusive ones have ended, and there is room. */
  share<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#exclusive.then(() => this.#inTurn(job));
    this.#all = Promise.all([this.#all, settled(result)]).then(() => undefined);
    return result;
  }

  async #inTurn<T>(job: () => Promise<T>): Promise<T> {
    if (this.#running === MAX_SHARED) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await job();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}

/**
 * A client may ask for any number of execs at once. Each is a program that this process starts, which holds its one thread
 * until the kernel has it running: with a hundred of them on two processors other containers waited two seconds.
 */
const MAX_SHARED = 8;

function settled(promise: Promise<unknown>): Promise<void> {
  return promise.then(
    () => undefined,
    () => undefined,
  );
}
