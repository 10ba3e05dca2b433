import type { EndNote, GuardStatus } from '../../src/shims/control.ts';

/** After so many starts that failed in a row requests are refused, with the reason. */
const MAX_FAILED = 5;
/** One that ends sooner than that after it began to serve is a short life … */
const STEADY_MS = 300;
/**
 * … of which so many in a row are followed at once, as nothing moves meanwhile. A request that they die of is given to no other after as
 * many (`MAX_WORKERS` in requests.ts), so this is the end of what one request can do.
 */
const MAX_SHORT = 10;
/** Milliseconds before the start that follows more of them, or a second failed one; doubled with each that fails after that … */
const FIRST_PAUSE_MS = 100;
/** … up to this. */
const LONGEST_PAUSE_MS = 5000;
/** So many ends are kept for those who ask. */
const KEPT_ENDS = 10;

/** How a worker has ended. */
export interface WorkerEnd {
  /** For how long it has served; undefined where it never did. */
  readonly servedMs: number | undefined;
  readonly why: string;
}

/** What is kept for those who ask, and for the program that takes this one's place. */
export type RestartsState = Pick<GuardStatus, 'restarts' | 'lastEnd' | 'ends'>;

/** How often a worker was started again, and why; when the next one is, and whether requests wait for it. */
export class Restarts {
  #restarts: number;
  /** The last few, oldest first. */
  #ends: readonly EndNote[];
  #failures = 0;
  #short = 0;
  #refusal: string | undefined;

  /** @param left what the program before this one has counted */
  constructor(left?: RestartsState) {
    this.#restarts = left?.restarts ?? 0;
    this.#ends = left?.ends ?? (left?.lastEnd === undefined ? [] : [left.lastEnd]);
  }

  /** @returns why what it was given is unanswered, and milliseconds until the next start */
  after({ servedMs, why }: WorkerEnd): { readonly reason: string; readonly pauseMs: number } {
    this.#restarts++;
    this.#ends = [...this.#ends, { why, at: Date.now() }].slice(-KEPT_ENDS);
    this.#failures = servedMs === undefined ? this.#failures + 1 : 0;
    if (servedMs !== undefined) this.#short = servedMs < STEADY_MS ? this.#short + 1 : 0;
    const reason = `the shim's worker has ended (${why})`;
    this.#refusal =
      this.#failures < MAX_FAILED ? undefined : this.refusalOf(`${reason}, ${this.#failures} times in a row`);
    return { reason, pauseMs: this.#pauseMs() };
  }

  /** Starts that failed in a row. */
  get failures(): number {
    return this.#failures;
  }

  /** Why requests are refused; undefined while they may wait for a worker. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  /** What a client is told that is refused for that. */
  refusalOf(reason: string): string {
    return `${reason}; the containers run on, and it is tried again (see: stasis shim ls)`;
  }

  get state(): RestartsState {
    const lastEnd = this.#ends.at(-1);
    return { restarts: this.#restarts, ...(lastEnd === undefined ? {} : { lastEnd }), ends: this.#ends };
  }

  #pauseMs(): number {
    if (this.#failures >= MAX_FAILED) return LONGEST_PAUSE_MS;
    if (this.#failures >= 2) return Math.min(FIRST_PAUSE_MS * 2 ** (this.#failures - 2), LONGEST_PAUSE_MS);
    return this.#short > MAX_SHORT ? FIRST_PAUSE_MS : 0;
  }
}
