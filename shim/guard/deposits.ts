import type { Deposit } from './messages.ts';

/** What was answered to whom, by task. */
export type DepositEntries = readonly (readonly [task: string, deposits: readonly Deposit[]])[];

/**
 * Answers that a worker has left for those who cannot wait for the next one. Nothing here knows what they mean: a request with the same
 * method and the same bytes gets the bytes that were left for it.
 */
export class Deposits {
  readonly #tasks = new Map<string, readonly Deposit[]>();
  readonly #answers = new Map<string, string>();

  /** @param entries what the program before this one had */
  constructor(entries: DepositEntries = []) {
    for (const [task, deposits] of entries) this.put(task, deposits);
  }

  get entries(): DepositEntries {
    return [...this.#tasks];
  }

  /** @param deposits all of that task's from now on; none where it is no more */
  put(task: string, deposits: readonly Deposit[]): void {
    for (const { method, payload } of this.#tasks.get(task) ?? [])
      this.#answers.delete(keyOf(method, payload));
    if (deposits.length === 0) this.#tasks.delete(task);
    else this.#tasks.set(task, deposits);
    for (const { method, payload, body } of deposits) this.#answers.set(keyOf(method, payload), body);
  }

  /** @returns the body of a ttrpc Response; undefined where nobody has left one */
  find(method: string, payload: Buffer): Buffer | undefined {
    const body = this.#answers.get(keyOf(method, payload.toString('base64')));
    return body === undefined ? undefined : Buffer.from(body, 'base64');
  }
}

const keyOf = (method: string, payload: string): string => `${method} ${payload}`;
