/**
 * INVARIANTS
 * - Holders of one key run one after another, in the order in which they asked.
 * - A holder that needs several keys takes them in one call; they are taken in sorted order, so two such
 *   holders cannot wait for each other.
 * - Nobody asks for a key while holding one.
 */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<void>>();

  /** Runs `work` while holding the keys. @throws the signal's reason where it is aborted before they are held */
  async run<T>(keys: string | readonly string[], work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const sorted = [...new Set(typeof keys === 'string' ? [keys] : keys)].sort();
    const releases: (() => void)[] = [];
    try {
      for (const key of sorted) releases.push(await this.#take(key, signal));
      return await work();
    } finally {
      for (const release of releases.reverse()) release();
    }
  }

  async #take(key: string, signal: AbortSignal | undefined): Promise<() => void> {
    const before = this.#tails.get(key);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#tails.set(key, promise);
    const release = (): void => {
      if (this.#tails.get(key) === promise) this.#tails.delete(key);
      resolve();
    };
    try {
      await unlessAborted(before, signal);
    } catch (error) {
      // Its place is kept for those behind it until its turn comes.
      if (before === undefined) release();
      else void before.then(release);
      throw error;
    }
    return release;
  }
}

async function unlessAborted(
  turn: Promise<void> | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  if (turn === undefined) return;
  if (signal === undefined) return turn;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([turn, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
