import { NotFound } from '../errors.ts';
import type { Row, Zfs } from '../zfs/zfs.ts';
import { properties } from './entry.ts';

const property = properties.unfinishedSets;

/**
 * Sets whose members are being made whole one after another, noted at the root dataset. Removing a set's note is what makes
 * all of it valid at once: what a start finds noted, it destroys.
 */
export class UnfinishedSets {
  readonly #zfs: Pick<Zfs, 'set' | 'inherit'>;
  readonly #root: string;
  readonly #ids = new Set<string>();
  /** The last change: each waits for the one before. */
  #changed: Promise<void> = Promise.resolve();

  constructor(zfs: Pick<Zfs, 'set' | 'inherit'>, root: string) {
    this.#zfs = zfs;
    this.#root = root;
  }

  /** Before the first member is made whole. */
  async begin(id: string): Promise<void> {
    await this.#change(() => this.#ids.add(id));
  }

  /** When all members are whole, or none is left. */
  async end(id: string): Promise<void> {
    await this.#change(() => this.#ids.delete(id));
  }

  /** Forgets what an earlier process left, when all of it has been destroyed. */
  async clear(): Promise<void> {
    await this.#change(() => this.#ids.clear());
  }

  async #change(edit: () => void): Promise<void> {
    const turn = this.#changed.then(async () => {
      edit();
      await (this.#ids.size === 0
        ? this.#zfs.inherit(this.#root, property)
        : this.#zfs.set(this.#root, { [property]: [...this.#ids].join(',') }));
    });
    this.#changed = turn.catch(() => undefined);
    return turn;
  }
}

/** The ids of unfinished sets in a listing of the pool that has the root dataset. */
export function unfinishedSets(listing: readonly Row[]): ReadonlySet<string> {
  const ids = listing
    .filter(({ type }) => type === 'filesystem')
    .map(({ properties: found }) => found.get(property))
    .filter((found) => found !== undefined && (found.source === 'local' || found.source === 'received'))
    .flatMap((found) => found?.value.split(',') ?? []);
  return new Set(ids.filter((id) => id !== ''));
}

/** @throws NotFound naming the sets there are */
export function noSuchSet(namespace: string, name: string, known: readonly string[]): NotFound {
  return new NotFound(`there is no set ${name} in namespace ${namespace}`, {
    subject: name,
    reason: 'set-not-found',
    remedy:
      known.length === 0
        ? 'take one with: stasis checkpoint one two'
        : `there are ${known.join(', ')}: see stasis ls`,
  });
}
