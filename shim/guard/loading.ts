import { threadOf, type ThreadState } from '../../src/sys/process.ts';

/** How often a worker is looked at that loads its program, and after how many looks in a row that saw it do nothing it counts as hung. */
const LOOK_MS = 500;
const MAX_IDLE = 10;

/**
 * Looks whether a worker that loads its program comes on: to load it takes a processor and the disk, and waits for nobody. One that is not
 * given a processor, or whose disk does not answer, is not idle.
 */
export class Loading {
  readonly #pid: number;
  readonly #hung: (why: string) => void;
  readonly #timer: NodeJS.Timeout;
  #last: ThreadState | undefined;
  #idle = 0;

  /** @param hung is told why it will not come on @param lookMs how often it is looked at */
  constructor(pid: number, hung: (why: string) => void, lookMs = LOOK_MS) {
    this.#pid = pid;
    this.#hung = hung;
    // What it has said is heard before it is looked at.
    this.#timer = setInterval(() => setImmediate(() => this.#look(lookMs)), lookMs);
  }

  /** It is over, by a word of the worker's or its end. */
  stop(): void {
    clearInterval(this.#timer);
    this.#idle = -Infinity;
  }

  #look(lookMs: number): void {
    const now = threadOf(this.#pid);
    if (now === undefined) return; // it has ended
    this.#idle = now.isIdle && now.usedMs === this.#last?.usedMs ? this.#idle + 1 : Math.min(this.#idle, 0);
    this.#last = now;
    if (this.#idle < MAX_IDLE) return;
    this.stop();
    const what = now.isStopped ? 'it was stopped' : `it has done nothing for ${(MAX_IDLE * lookMs) / 1000} s`;
    this.#hung(`${what}, and had not loaded its program`);
  }
}
