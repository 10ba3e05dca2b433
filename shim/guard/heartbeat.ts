import { threadOf, type ThreadState } from '../../src/sys/process.ts';

/** How often a worker is asked whether it lives, and how often in a row it may not answer. */
const ASK_MS = 500;
const MAX_UNANSWERED = 6;
/** How often one that has not answered is looked at. */
const LOOK_MS = 250;
/** containerd waits two seconds for a State. So long, without an answer, a processor of its own is used for nothing … */
const TURNING_MS = 1000;
/** … and this part of the time at least: less can be one that has much to do and is given little. */
const TURNING_SHARE = 0.9;

/** What was seen of a worker, and when, in milliseconds. */
export interface Look extends ThreadState {
  readonly at: number;
}

/**
 * What a worker does that has not answered since `first`, which it will not come to an end of by itself; undefined where that is not known.
 * One that is only not given a processor is neither.
 * @param last the look before this one
 */
export function hangs(first: Look, last: Look, now: Look): string | undefined {
  if (now.isStopped && last.isStopped) return 'it was stopped';
  const [passed, used] = [now.at - first.at, now.usedMs - first.usedMs];
  return passed >= TURNING_MS && used >= passed * TURNING_SHARE
    ? `it has used a processor for ${(used / 1000).toFixed(1)} s without an answer`
    : undefined;
}

/**
 * Asks a worker whether it lives, and says so where it does not.
 *
 * INVARIANTS
 * - Nothing is said before all is heard that the worker has sent: a guard that stood still says nothing about the worker.
 * - Questions are counted, not timed, for the same reason.
 */
export class Heartbeat {
  readonly #pid: number;
  readonly #ask: () => void;
  readonly #hung: (why: string) => void;
  #asks: NodeJS.Timeout | undefined;
  #looks: NodeJS.Timeout | undefined;
  #unanswered = 0;
  #first: Look | undefined;
  #last: Look | undefined;

  /** @param hung is told why it counts as dead */
  constructor(pid: number, ask: () => void, hung: (why: string) => void) {
    this.#pid = pid;
    this.#ask = ask;
    this.#hung = hung;
  }

  start(): void {
    this.stop();
    this.#asks = setInterval(() => setImmediate(() => this.#next()), ASK_MS);
  }

  stop(): void {
    clearInterval(this.#asks);
    this.#asks = undefined;
    this.answered();
  }

  answered(): void {
    this.#unanswered = 0;
    clearInterval(this.#looks);
    this.#looks = undefined;
  }

  #next(): void {
    if (this.#asks === undefined) return;
    if (this.#unanswered >= MAX_UNANSWERED) {
      this.#hung(`it has not answered for ${(this.#unanswered * ASK_MS) / 1000} s`);
      return;
    }
    if (this.#unanswered++ === 0) {
      this.#first = this.#last = this.#see();
      this.#looks = setInterval(() => setImmediate(() => this.#look()), LOOK_MS);
    }
    this.#ask();
  }

  #look(): void {
    if (this.#looks === undefined) return;
    const now = this.#see();
    if (this.#first === undefined || this.#last === undefined || now === undefined) return; // it has ended
    const why = hangs(this.#first, this.#last, now);
    this.#last = now;
    if (why !== undefined) this.#hung(why);
  }

  #see(): Look | undefined {
    const thread = threadOf(this.#pid);
    return thread === undefined ? undefined : { ...thread, at: performance.now() };
  }
}
