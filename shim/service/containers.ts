import { setTimeout as sleep } from 'node:timers/promises';
import { AlreadyExists, NotFound } from '../../src/errors.ts';
import type { Container } from '../container/container.ts';

/** The containers of this shim, those that are being made included. */
export class Containers {
  readonly #known = new Map<string, Container>();
  /** Ids of those that are being made, with what resolves when that is over. */
  readonly #coming = new Map<
    string,
    { readonly made: Promise<unknown>; readonly breakOff: () => Promise<void> }
  >();

  /** @throws NotFound */
  get(id: string): Container {
    const container = this.#known.get(id);
    if (container === undefined) throw new NotFound(`container ${id} not created`, { subject: id });
    return container;
  }

  find(id: string): Container | undefined {
    return this.#known.get(id);
  }

  /**
   * Keeps an id while its container is being made.
   * @param breakOff has `make` fail soon, if it can
   * @throws AlreadyExists
   */
  async add(
    id: string,
    make: () => Promise<Container>,
    breakOff: () => Promise<void> = () => Promise.resolve(),
  ): Promise<Container> {
    if (this.has(id)) {
      throw new AlreadyExists(`container ${id} already exists`, { subject: id });
    }
    const making = this.#make(id, make);
    this.#coming.set(id, { made: making, breakOff });
    return making;
  }

  async #make(id: string, make: () => Promise<Container>): Promise<Container> {
    try {
      const container = await make();
      this.#known.set(id, container);
      return container;
    } finally {
      this.#coming.delete(id);
    }
  }

  /**
   * Like `get`, but waits for one that is being made.
   * @throws NotFound
   */
  async getMade(id: string): Promise<Container> {
    await this.#coming.get(id)?.made.catch(() => undefined); // whoever makes it is told
    return this.get(id);
  }

  /**
   * Breaks off the making of one that nobody wants any more, and waits until it is undone.
   * @param patienceMs for what does not come to an end: it goes on by itself
   */
  async breakOff(id: string, patienceMs: number): Promise<void> {
    const coming = this.#coming.get(id);
    if (coming === undefined) return;
    const undone = coming.breakOff().then(() => coming.made);
    const timer = new AbortController();
    const timeout = sleep(patienceMs, undefined, { signal: timer.signal });
    await Promise.race([undone, timeout]).catch(() => undefined); // whoever makes it is told
    timer.abort();
  }

  /** Whether there is one, or it is being made. */
  has(id: string): boolean {
    return this.#known.has(id) || this.#coming.has(id);
  }

  /** One that an earlier worker has made. */
  takeUp(container: Container): void {
    this.#known.set(container.id, container);
  }

  remove(id: string): void {
    this.#known.delete(id);
  }

  get all(): Iterable<Container> {
    return this.#known.values();
  }

  get size(): number {
    return this.#known.size + this.#coming.size;
  }
}
