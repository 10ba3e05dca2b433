export interface QuietOptions {
  /** How long nothing has to have happened, in milliseconds. */
  readonly quietMs: number;
  /** Milliseconds after the work that pass before it can be its time again. */
  readonly againMs: number;
  /** Must not throw. */
  readonly work: () => void;
}

/**
 * Does something when nothing goes on, where it is in nobody's way. Each quiet time has it done once, after which only a new event leads to
 * another: an idle shim is not woken.
 */
export class QuietTime {
  readonly #options: QuietOptions;
  #timer: NodeJS.Timeout | undefined;
  #notBefore = 0;

  constructor(options: QuietOptions) {
    this.#options = options;
    this.note();
  }

  /** Something happens. */
  note(): void {
    clearTimeout(this.#timer);
    if (performance.now() >= this.#notBefore) this.#start();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#notBefore = Infinity;
  }

  #start(): void {
    const { quietMs, againMs, work } = this.#options;
    this.#timer = setTimeout(() => {
      this.#notBefore = performance.now() + againMs;
      work();
    }, quietMs).unref();
  }
}
