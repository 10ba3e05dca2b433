import { Lane } from '../../src/sys/lane.ts';

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
  readonly #shared = new Lane(() => MAX_SHARED);

  /** Runs a job when all earlier ones have ended. */
  run<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#all.then(job);
    this.#all = this.#exclusive = settled(result);
    return result;
  }

  /** Runs a job when the earlier exclusive ones have ended, and there is room. */
  share<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#exclusive.then(() => this.#shared.run(job));
    this.#all = Promise.all([this.#all, settled(result)]).then(() => undefined);
    return result;
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
