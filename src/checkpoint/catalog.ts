import { AlreadyExists, NotFound } from '../errors.ts';
import { datasetOf } from '../zfs/names.ts';
import type { Row, Zfs } from '../zfs/zfs.ts';
import { type CheckpointEntry, entryFromRows, isReceived } from './entry.ts';
import { unfinishedSets } from './unfinished-sets.ts';

/** What a sweep found half-made, and destroyed. */
export interface Swept {
  readonly snapshot: string;
  readonly why: string;
}

/**
 * All checkpoints in the pool, by container and name. The pool is the database: this is read from it at
 * start, and kept in step by the operations that make and remove checkpoints.
 *
 * A checkpoint exists when both its snapshots do, the disk's and the memory dataset's (which holds the record
 * even when no memory was dumped). The disk's is made first and the memory's last when one is taken; the
 * memory's goes first when one is removed: so a disk half alone is always unfinished or already removed.
 */
export class Catalog {
  readonly #zfs: Pick<Zfs, 'destroyIdempotent'>;
  /** namespace/container → checkpoints, oldest first. */
  readonly #byContainer = new Map<string, CheckpointEntry[]>();
  readonly #byId = new Map<string, CheckpointEntry>();
  /** Snapshots that were destroyed while clones stand on them: ZFS keeps them, and their names, until those go. */
  readonly #retired = new Set<string>();
  /** Ids of those that came by `zfs receive`. */
  readonly #received = new Set<string>();
  /** Copies that came by `zfs receive` of what is here already, with its id: each stands in for it once it is removed. */
  readonly #copies = new Map<string, CheckpointEntry[]>();
  /** Checkpoints that a restore is reading from. */
  readonly #readers = new Map<string, number>();

  constructor(zfs: Pick<Zfs, 'destroyIdempotent'>) {
    this.#zfs = zfs;
  }

  /**
   * Takes in what a listing of the pool says (see `readPool` in snapshotter/load.ts), and destroys halves of checkpoints
   * that were never finished or already removed. The listing is out of date where it destroyed any. What was received from
   * elsewhere, as the source of its properties tells, is not ours to destroy: its other half may still come.
   */
  async load(listing: readonly Row[]): Promise<Swept[]> {
    const rows = listing.filter(({ type }) => type === 'snapshot');
    this.#byContainer.clear();
    this.#byId.clear();
    this.#copies.clear();
    const { entries, orphans, retired } = entryFromRows(rows);
    for (const snapshot of retired) this.#retired.add(snapshot);
    const swept: Swept[] = [];
    const unfinished = unfinishedSets(listing);
    for (const entry of entries) {
      if (!unfinished.has(entry.set)) this.#take(entry);
      else orphans.push(...halvesOf(entry, 'the set that it belongs to was never finished'));
    }
    const received = new Set(rows.filter(isReceived).map(({ name }) => name));
    for (const { id, snapshot } of this.#byId.values()) if (received.has(snapshot)) this.#received.add(id);
    for (const { snapshot, why } of orphans) {
      if (received.has(snapshot)) continue;
      await this.#zfs.destroyIdempotent(snapshot, { defer: true });
      swept.push({ snapshot, why });
    }
    return swept;
  }

  /** Takes in whole checkpoints that came by `zfs receive` since the pool was read, and lets go of such that went. */
  notice(listing: readonly Row[]): void {
    const rows = listing.filter(({ type }) => type === 'snapshot');
    for (const entry of entryFromRows(rows.filter(isReceived)).entries) {
      if (this.#take(entry)) this.#received.add(entry.id);
    }
    const there = new Set(rows.map(({ name }) => name));
    for (const [id, copies] of this.#copies)
      this.#copies.set(
        id,
        copies.filter(({ snapshot }) => there.has(snapshot)),
      );
    for (const entry of [...this.#byId.values()])
      if (this.#received.has(entry.id) && !there.has(entry.snapshot)) this.delete(entry);
  }

  add(entry: CheckpointEntry): void {
    const list = this.#byContainer.get(key(entry.namespace, entry.container)) ?? [];
    list.push(entry);
    list.sort((a, b) => (a.createdNs < b.createdNs ? -1 : 1));
    this.#byContainer.set(key(entry.namespace, entry.container), list);
    this.#byId.set(entry.id, entry);
  }

  delete(entry: CheckpointEntry): void {
    const at = key(entry.namespace, entry.container);
    const rest = (this.#byContainer.get(at) ?? []).filter((other) => other.id !== entry.id);
    if (rest.length === 0) this.#byContainer.delete(at);
    else this.#byContainer.set(at, rest);
    this.#byId.delete(entry.id);
    this.#received.delete(entry.id);
    const [copy, ...others] = this.#copies.get(entry.id) ?? [];
    this.#copies.delete(entry.id);
    if (copy === undefined) return;
    this.add(copy);
    this.#received.add(copy.id);
    if (others.length > 0) this.#copies.set(copy.id, others);
  }

  /** Lets go of copies in a dataset that is destroyed; of the checkpoints that stand for themselves none may be in it. */
  forgetCopies(dataset: string): void {
    for (const [id, copies] of this.#copies)
      this.#copies.set(
        id,
        copies.filter(({ snapshot }) => datasetOf(snapshot) !== dataset),
      );
  }

  /** Takes an entry in, as a copy where there is one of its id. @returns whether it is the one that counts now */
  #take(entry: CheckpointEntry): boolean {
    const present = this.#byId.get(entry.id);
    if (present === undefined) {
      this.add(entry);
      return true;
    }
    const copies = this.#copies.get(entry.id) ?? [];
    if ([present, ...copies].every(({ snapshot }) => snapshot !== entry.snapshot))
      this.#copies.set(entry.id, [...copies, entry]);
    return false;
  }

  byId(id: string): CheckpointEntry | undefined {
    return this.#byId.get(id);
  }

  /** Checkpoints of a container, oldest first. */
  of(namespace: string, container: string): readonly CheckpointEntry[] {
    return this.#byContainer.get(key(namespace, container)) ?? [];
  }

  all(): IterableIterator<CheckpointEntry> {
    return this.#byId.values();
  }

  has(namespace: string, container: string, name: string): boolean {
    return this.of(namespace, container).some((entry) => entry.name === name);
  }

  /** Notes that a snapshot's name stays taken though the snapshot is destroyed. */
  retire(snapshot: string): void {
    this.#retired.add(snapshot);
  }

  /**
   * The name for a checkpoint's two snapshots: its own, with `.2`, `.3` … where a retired snapshot of one of the datasets has
   * that, or it is among those that are `known` to be taken.
   */
  snapshotName(datasets: readonly string[], name: string, known: ReadonlySet<string> = new Set()): string {
    const taken = (candidate: string): boolean =>
      known.has(candidate) || datasets.some((dataset) => this.#retired.has(`${dataset}@${candidate}`));
    let candidate = name;
    for (let n = 2; taken(candidate); n++) candidate = `${name}.${n}`;
    return candidate;
  }

  /** The checkpoints of a set in a namespace, by the containers' names; none where there is no such set. */
  ofSet(namespace: string, name: string): readonly CheckpointEntry[] {
    return [...this.#byId.values()]
      .filter((entry) => entry.set !== '' && entry.namespace === namespace && entry.name === name)
      .sort((a, b) => (a.container < b.container ? -1 : 1));
  }

  /** @throws AlreadyExists */
  assertFree(namespace: string, container: string, name: string): void {
    if (!this.has(namespace, container, name)) return;
    throw new AlreadyExists(`container ${container} already has a checkpoint ${name}`, {
      subject: `${container}@${name}`,
      reason: 'checkpoint-exists',
      remedy: `choose another --name, or remove it with: stasis rm ${container} ${name}`,
    });
  }

  /** The latest that has its memory here, or never had any. What a stock client took is nobody's default: the memory is with it. */
  latest(namespace: string, container: string): CheckpointEntry | undefined {
    return this.of(namespace, container).findLast(({ memory }) => memory !== 'external');
  }

  /**
   * The checkpoint of that name, or the latest (see `latest`) where the name is empty.
   * @throws NotFound naming what there is
   */
  resolve(namespace: string, container: string, name: string): CheckpointEntry {
    const all = this.of(namespace, container);
    const named = all.filter((entry) => entry.name === name);
    // Of two containers of one name, the one that is here is meant and not the one that came from elsewhere.
    const found =
      name === ''
        ? this.latest(namespace, container)
        : (named.find(({ id }) => !this.#received.has(id)) ?? named[0]);
    if (found !== undefined) return found;
    if (all.length === 0) {
      throw new NotFound(`container ${container} has no checkpoints in namespace ${namespace}`, {
        subject: container,
        reason: 'no-checkpoints',
        remedy: `take one with: stasis checkpoint ${container}`,
      });
    }
    if (name === '') {
      const names = all.map((entry) => entry.name).join(', ');
      throw new NotFound(`all checkpoints of container ${container} were taken by other clients: ${names}`, {
        subject: container,
        reason: 'no-checkpoints',
        remedy: `restore the memory by the client that took it, or the disk alone: stasis restore ${container} --snapshot ${all.at(-1)?.name}`,
      });
    }
    throw new NotFound(`container ${container} has no checkpoint ${name}`, {
      subject: `${container}@${name}`,
      reason: 'checkpoint-not-found',
      remedy: `it has ${all.map((entry) => entry.name).join(', ')}: see stasis ls ${container}`,
    });
  }

  /** Runs `work` while the checkpoint cannot be removed. */
  async reading<T>(entry: CheckpointEntry, work: () => Promise<T>): Promise<T> {
    this.#readers.set(entry.id, (this.#readers.get(entry.id) ?? 0) + 1);
    try {
      return await work();
    } finally {
      const left = (this.#readers.get(entry.id) ?? 1) - 1;
      if (left === 0) this.#readers.delete(entry.id);
      else this.#readers.set(entry.id, left);
    }
  }

  isBeingRead(entry: CheckpointEntry): boolean {
    return this.#readers.has(entry.id);
  }
}

function key(namespace: string, container: string): string {
  return `${namespace}/${container}`;
}

/** The memory half first, as wherever a checkpoint is removed. */
function halvesOf({ snapshot, memorySnapshot }: CheckpointEntry, why: string): Swept[] {
  const halves = memorySnapshot === undefined ? [snapshot] : [memorySnapshot, snapshot];
  return [...new Set(halves)].map((half) => ({ snapshot: half, why }));
}
