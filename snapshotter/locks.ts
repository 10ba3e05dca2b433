/** Names that one call needs; one that is asked for both ways is held exclusively. */
export interface LockRequest {
  readonly exclusive?: readonly string[];
  readonly shared?: readonly string[];
}

/**
 * Locks by name, shared or exclusive, first come first served.
 *
 * Invariants: a caller takes all its names in one `run`, in sorted order, so callers cannot wait for each other
 * in a circle; nothing inside `run` may call `run` again for a name that it holds; a waiter that asks for a name
 * exclusively is never overtaken by a later sharer.
 */
export class KeyedLocks {
  readonly #queues = new Map<string, Queue>();

  /** Runs `work` while every name is held as asked. */
  async run<T>(names: LockRequest, work: () => Promise<T>): Promise<T> {
    const modes = new Map<string, boolean>();
    for (const name of names.shared ?? []) modes.set(name, false);
    for (const name of names.exclusive ?? []) modes.set(name, true);
    const held: [string, Queue][] = [];
    try {
      for (const [name, exclusive] of [...modes].sort(([a], [b]) => (a < b ? -1 : 1))) {
        const queue = this.#queues.get(name) ?? new Queue();
        this.#queues.set(name, queue);
        await queue.acquire(exclusive);
        held.push([name, queue]);
      }
      return await work();
    } finally {
      for (const [name, queue] of held.reverse()) {
        queue.release();
        if (queue.idle && this.#queues.get(name) === queue) this.#queues.delete(name);
      }
    }
  }

  /** Whether nobody holds any of the names, or waits for it. */
  areFree(names: readonly string[]): boolean {
    return !names.some((name) => this.#queues.has(name));
  }

  /** Names that are held or waited for. */
  get size(): number {
    return this.#queues.size;
  }
}

class Queue {
  #sharers = 0;
  #exclusive = false;
  readonly #waiting: { exclusive: boolean; go: () => void }[] = [];

  get idle(): boolean {
    return this.#sharers === 0 && !this.#exclusive && this.#waiting.length === 0;
  }

  acquire(exclusive: boolean): Promise<void> {
    return new Promise((go) => {
      this.#waiting.push({ exclusive, go });
      this.#admit();
    });
  }

  release(): void {
    if (this.#exclusive) this.#exclusive = false;
    else this.#sharers--;
    this.#admit();
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#exclusive || (next.exclusive && this.#sharers > 0)) return;
      this.#waiting.shift();
      if (next.exclusive) this.#exclusive = true;
      else this.#sharers++;
      next.go();
    }
  }
}
