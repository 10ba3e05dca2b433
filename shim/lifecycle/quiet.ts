export interface QuietOptions {
  /** How long nothing has to have happened, in milliseconds. */
  readonly quietMs: number;
  /** Milliseconds after the work that pass at least before it is done again. */
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
  #stopped = false;

  constructor(options: QuietOptions) {
    this.#options = options;
    this.note();
  }

  /** Something happens. */
  note(): void {
    const { quietMs, againMs, work } = this.#options;
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    const wait = Math.max(quietMs, this.#notBefore - performance.now());
    this.#timer = setTimeout(() => {
      this.#notBefore = performance.now() + againMs;
      work();
    }, wait).unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }
}
