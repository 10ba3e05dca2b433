// Checkpoints whose callers did not wait for them to be stored.
import { InvalidArgument, NotFound } from '../errors.ts';
import type { CheckpointEntry } from './entry.ts';
import { findCheckpoint } from './find.ts';
import { type Host, lockKey } from './host.ts';
import { validateCheckpointName, validateContainerId, validateNamespace } from './names.ts';

/** One that is being stored, or could not be. */
export interface Unstored {
  readonly entry: CheckpointEntry;
  /** Why it could not be stored; undefined while that goes on. */
  readonly error: unknown;
}

interface Storage extends Unstored {
  error: unknown;
  readonly work: Promise<unknown>;
}

/**
 * Invariants: at most one of a container, since who stores holds the container's lock; one that is whole is not here but in
 * the catalog; one that failed stays until the container's next checkpoint begins to be stored without waiting, or `forget`.
 */
export class Storing {
  readonly #byContainer = new Map<string, Storage>();

  /** @param work ends when all of the entries are whole, or fails and leaves none */
  begin(entries: readonly CheckpointEntry[], work: Promise<unknown>): void {
    for (const entry of entries) {
      const key = lockKey(entry.namespace, entry.container);
      const storage: Storage = { entry, error: undefined, work };
      this.#byContainer.set(key, storage);
      work.then(
        () => this.#delete(key, storage),
        (error: unknown) => (storage.error = error),
      );
    }
  }

  /** What is known of a container's, other than what is whole. */
  find(namespace: string, container: string): Unstored | undefined {
    return this.#byContainer.get(lockKey(namespace, container));
  }

  all(): Unstored[] {
    return [...this.#byContainer.values()];
  }

  /** A later checkpoint is whole: that an earlier one failed is no news any more. */
  forget(namespace: string, container: string): void {
    const key = lockKey(namespace, container);
    const storage = this.#byContainer.get(key);
    if (storage?.error !== undefined) this.#byContainer.delete(key);
  }

  /** Returns when a container's is whole, or at once where there is none. @throws what storing it failed with */
  async wait(namespace: string, container: string, signal: AbortSignal): Promise<void> {
    const storage = this.#byContainer.get(lockKey(namespace, container));
    if (storage === undefined) return;
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', leave, { once: true });
    try {
      signal.throwIfAborted();
      await Promise.race([storage.work, left]);
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  #delete(key: string, storage: Storage): void {
    if (this.#byContainer.get(key) === storage) this.#byContainer.delete(key);
  }
}

/**
 * Runs `take` until the instant is over, and answers what will be whole when it has been stored. Until then the signal undoes
 * it; afterwards its caller is gone, and it goes on to its end.
 */
export async function untilInstant(
  host: Host,
  request: { readonly exit: boolean; readonly signal: AbortSignal },
  take: (options: {
    signal: AbortSignal;
    atInstant: (entries: readonly CheckpointEntry[]) => void;
  }) => Promise<CheckpointEntry[]>,
): Promise<readonly CheckpointEntry[]> {
  if (request.exit) {
    throw new InvalidArgument(
      'a container is ended when its checkpoint is whole, which has to be waited for',
      {
        reason: 'usage',
        remedy: 'leave out one of --exit and --no-wait',
      },
    );
  }
  const { signal } = request;
  const own = new AbortController();
  const follow = (): void => own.abort(signal.reason);
  signal.addEventListener('abort', follow, { once: true });
  if (signal.aborted) follow();
  const { promise: instant, resolve } = Promise.withResolvers<readonly CheckpointEntry[]>();
  try {
    const work = take({ signal: own.signal, atInstant: resolve });
    const over = await Promise.race([instant.then((entries) => ({ entries })), work]);
    if (Array.isArray(over)) return over; // it was whole at once
    host.storing.begin(over.entries, work);
    host.later(`store ${over.entries.map(({ container, name }) => `${container}@${name}`).join(', ')}`, work);
    return over.entries;
  } finally {
    signal.removeEventListener('abort', follow);
  }
}

/** A checkpoint when it is whole. @throws what storing it failed with; NotFound */
export async function waitForStored(
  host: Host,
  { namespace, container, checkpoint }: { namespace: string; container: string; checkpoint: string },
  signal: AbortSignal,
): Promise<CheckpointEntry> {
  validateNamespace(namespace);
  validateContainerId(container);
  if (checkpoint !== '') validateCheckpointName(checkpoint);
  const unstored = host.storing.find(namespace, container);
  if (unstored !== undefined && (checkpoint === '' || unstored.entry.name === checkpoint)) {
    await host.storing.wait(namespace, container, signal);
    const whole = host.catalog.byId(unstored.entry.id);
    if (whole !== undefined) return whole;
    throw new NotFound(`checkpoint ${unstored.entry.name} of ${container} was removed`, {
      subject: `${container}@${unstored.entry.name}`,
      reason: 'checkpoint-not-found',
    });
  }
  return findCheckpoint(host, host.containerd.namespace(namespace), container, checkpoint);
}
