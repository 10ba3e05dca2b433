import type { Connection } from '../../ttrpc/index.ts';

/**
 * Tells a containerd that has restarted from one that asks in the middle of its life. A restarted one opens a connection
 * for each task, calls Connect first of all, then Pids, and (from 1.7 on) deletes the task if no pid is named, though a
 * task that has ended meanwhile still owes its exit status to whoever waits for it.
 */
export class Reloads {
  readonly #begun = new WeakSet<Connection>();
  readonly #reloading = new WeakSet<Connection>();

  /** To be told of every call, by its method. Answers whether it is a restarted containerd's first. */
  note(connection: Connection, method: string): boolean {
    const first = !this.#begun.has(connection) && method === 'Connect';
    if (first) this.#reloading.add(connection);
    this.#begun.add(connection);
    return first;
  }

  /** Whether this Pids is such a one's; true once for each connection. */
  isReload(connection: Connection): boolean {
    return this.#reloading.delete(connection);
  }
}
