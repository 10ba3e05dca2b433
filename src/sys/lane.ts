/** How many of `run` are under way, in a pool that leaves room for others. */
export class Lane {
  readonly #most: () => number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** @param most asked each time one wants to begin */
  constructor(most: () => number) {
    this.#most = most;
  }

  /** Runs a job at once, or as soon as one of those before it has ended; in order. */
  async run<T>(job: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#most()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await job();
    } finally {
      // Its place goes to the next, if one waits.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
