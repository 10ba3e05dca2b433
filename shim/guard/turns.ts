/** For how long one has its turn alone: it may be slow for a reason of its own, or wait for what comes after it. */
const TURN_MS = 1000;

/** A request, for which it is enough to know whether a worker has it. */
interface Turn {
  readonly given: boolean;
}

/**
 * Requests with which workers have ended go to the next one after each other. Where several were under way, and one of them is what
 * workers die of, the others come to their end before or after it, and do not share its blame; and where workers end for another reason
 * each comes to something in the life of one, instead of all together to nothing.
 */
export class Turns {
  /** Where the worker takes no requests that others have passed, all go at once. */
  isUsed = true;
  #current: Turn | undefined;
  #over: NodeJS.Timeout | undefined;
  readonly #waiting = new Map<Turn, () => void>();

  /** @param give is called when it is its turn, if that is not now @returns whether it is */
  take(turn: Turn, give: () => void): boolean {
    if (!this.isUsed) return true;
    if (this.#current === undefined) this.#begin(turn);
    else if (this.#current !== turn) this.#waiting.set(turn, give);
    return this.#current === turn;
  }

  /** It is answered, or wants none any more. */
  done(turn: Turn): void {
    this.#waiting.delete(turn);
    if (this.#current === turn) this.#next();
  }

  /** Whoever serves has ended: all ask the next one. */
  clear(): void {
    this.#waiting.clear();
    clearTimeout(this.#over);
    this.#current = undefined;
  }

  #begin(turn: Turn): void {
    clearTimeout(this.#over);
    this.#current = turn;
    this.#over = setTimeout(() => this.#next(), TURN_MS).unref();
  }

  #next(): void {
    clearTimeout(this.#over);
    this.#current = undefined;
    for (const [turn, give] of this.#waiting) {
      this.#waiting.delete(turn);
      this.#begin(turn);
      give();
      if (turn.given) return;
      clearTimeout(this.#over);
      this.#current = undefined; // it is kept back for another reason, and asks again
    }
  }
}
