import { FailedPrecondition, NotFound } from '../src/errors.ts';
import { silent, type Logger } from '../src/log.ts';
import type { WallTime } from '../src/sys/clock.ts';
import { canMapIds } from '../src/sys/idmap.ts';
import { syncfs } from '../src/sys/syncfs.ts';
import type { Mounter } from '../src/zfs/mounter.ts';
import { datasetOf } from '../src/zfs/names.ts';
import type { CallOptions, Properties, Row, Zfs } from '../src/zfs/zfs.ts';
import { AwaitedPlaces } from './awaited.ts';
import { type BindMount, bindMount } from './bind-mount.ts';
import { commit, update } from './commit.ts';
import { type ContainerDisk, findDisk } from './container-disk.ts';
import { missing, rootfsOf, type Made } from './dataset.ts';
import { withTrees, type Trees } from './diff/trees.ts';
import { compileFilters } from './filters.ts';
import { findGone, isCorrected, reliedOn } from './gone.ts';
import { isReplaceable, snapshotNames } from './hand-over.ts';
import { health, type Health } from './health.ts';
import { isLive, SnapshotIndex, type Node } from './index.ts';
import { Layout } from './layout.ts';
import { loadIndex, readPool } from './load.ts';
import { KeyedLocks } from './locks.ts';
import { lockName, realTime, type Pool } from './pool.ts';
import { prepare } from './prepare.ts';
import { remove, sweep, type Swept } from './remove.ts';
import { rewind, type Rewound, undoRewind } from './rewind.ts';
import { ROOTFS, type Labels, type Snapshot } from './snapshot.ts';
import { noting } from './unsettled.ts';
import { Strangers } from './strangers.ts';
import { usage } from './usage.ts';

export interface StoreOptions {
  readonly zfs: Zfs;
  readonly mounter: Mounter;
  /** Root dataset, such as `tank/stasis`. */
  readonly root: string;
  /** UUID of the containerd whose snapshots are served where a call names no other; may be set later. */
  readonly owner?: string;
  /** Seconds that a removed container's root file system stays in the trash. */
  readonly trashGrace: number;
  readonly log?: Logger;
  /** For tests. */
  readonly now?: () => WallTime;
  readonly syncfs?: (path: string) => Promise<void>;
  readonly mapsIds?: (path: string) => Promise<boolean>;
  /** Called when nothing needs a removed dataset any more: the next sweep takes it. */
  readonly onReleased?: (dataset: string) => void;
}

/**
 * The snapshots of a pool: containerd's, and what checkpoints, rewinds and clones make of them. Everything
 * durable is in the pool; the index is in memory, so reads start no process, and each write is one command.
 *
 * Invariants: operations on one name exclude each other, and making a child excludes removing its parent; the
 * index changes after the pool did, in the same turn as the command's answer.
 */
export class SnapshotStore {
  readonly #pool: Pool;
  readonly #grace: number;
  readonly #onReleased: (dataset: string) => void;
  #owner: string;
  #sweeping: Promise<Swept> | undefined;
  #swept: Swept | undefined;
  readonly #awaited = new AwaitedPlaces();
  /** What is in the pool and not in use by the containerd that is served. */
  readonly strangers: Strangers;

  constructor(options: StoreOptions) {
    const unsettled = new Set<string>();
    this.#pool = {
      zfs: noting(options.zfs, unsettled),
      mounter: options.mounter,
      layout: new Layout(options.root),
      index: new SnapshotIndex(),
      locks: new KeyedLocks(),
      owners: new Set(options.owner === undefined ? [] : [options.owner]),
      reserved: new Set(),
      unsettled,
      rewinding: new Set(),
      unmarked: new Set(),
      log: options.log ?? silent,
      placing: (snapshot, rootfs) => this.#awaited.decided(snapshot, rootfs),
      mapsIds: rememberYes(options.mapsIds ?? canMapIds),
      now: options.now ?? realTime,
      syncfs: options.syncfs ?? syncfs,
    };
    this.#owner = options.owner ?? '';
    this.strangers = new Strangers(this.#pool, (owner) => this.#ownerOr(owner));
    this.#grace = options.trashGrace;
    this.#onReleased = options.onReleased ?? (() => undefined);
  }

  get root(): string {
    return this.#pool.layout.root;
  }

  /** UUID of the containerd that is served by default; empty until it is known. */
  get owner(): string {
    return this.#owner;
  }
  set owner(uuid: string) {
    this.#owner = uuid;
    this.serve(uuid);
  }

  /** Makes a containerd one of those whose removed datasets are destroyed when they are due. */
  serve(uuid: string): void {
    this.#pool.owners.add(uuid);
  }

  /**
   * Fills the index from a listing of the pool, and makes the root where there is none. Call once, before all else.
   * @param listing what `readPool` answered, where the caller has it already
   */
  async load(listing?: readonly Row[]): Promise<void> {
    await loadIndex(this.#pool, listing ?? (await readPool(this.#pool.zfs, this.root)));
  }

  /** What Prepare and View do; the snapshot is mounted when this returns. See prepare.ts. */
  async prepare(
    request: { owner?: string; name: string; kind: 'active' | 'view'; parent: string; labels: Labels },
    call?: CallOptions,
  ): Promise<BindMount[]> {
    const given = { ...request, owner: this.#ownerOr(request.owner) };
    const make = (): Promise<Made> => prepare(this.#pool, given, call);
    const { node, rootfs } = await make().catch(async (error: unknown) => {
      const relied = (): Node[] => reliedOn(this.#pool, given);
      if (!(await this.#isCorrected([given.name, given.parent], relied, given.owner, error))) throw error;
      return make();
    });
    return [bindMount(node.snapshot ?? request, rootfs)];
  }

  /** @throws NotFound; FailedPrecondition for a committed snapshot */
  async mounts(name: string, owner?: string): Promise<BindMount[]> {
    return this.#sharing(name, owner, async (node) => {
      if (node.snapshot.kind === 'committed') {
        throw new FailedPrecondition(`snapshot ${name} is committed: it has no mounts`, { subject: name });
      }
      return [bindMount(node.snapshot, await rootfsOf(this.#pool, node.dataset))];
    });
  }

  /** See `commit` in commit.ts. */
  async commit(
    request: { owner?: string; name: string; key: string; labels: Labels; parent: string },
    call?: CallOptions,
  ): Promise<void> {
    await commit(this.#pool, { ...request, owner: this.#ownerOr(request.owner) }, call);
  }

  /** See `update` in commit.ts. */
  async update(
    request: { owner?: string; name: string; labels: Labels; paths: readonly string[] | undefined },
    call?: CallOptions,
  ): Promise<Snapshot> {
    return update(this.#pool, { ...request, owner: this.#ownerOr(request.owner) }, call);
  }

  /** See `remove` in remove.ts. */
  async remove(name: string, owner?: string, call?: CallOptions): Promise<void> {
    await remove(this.#pool, this.#ownerOr(owner), name, call);
  }

  /** @throws NotFound */
  stat(name: string, owner?: string): Snapshot {
    return this.#node(name, owner).snapshot;
  }

  /** As stat; undefined where there is none. */
  lookup(name: string, owner?: string): Snapshot | undefined {
    return this.#pool.index.current(this.#ownerOr(owner), name)?.snapshot;
  }

  /** The current snapshots of one containerd that match any of the filters. @throws InvalidArgument */
  *list(filters: readonly string[], owner?: string): Generator<Snapshot> {
    const matches = compileFilters(filters);
    for (const { snapshot } of this.#pool.index.list(this.#ownerOr(owner)))
      if (matches(snapshot)) yield snapshot;
  }

  /** Bytes and inodes beyond the parent's. @throws NotFound */
  async usage(name: string, owner?: string): Promise<{ size: bigint; inodes: bigint }> {
    const ours = this.#ownerOr(owner);
    const relied = (): Node[] => this.#pool.index.generations(ours, name);
    const ask = (): Promise<{ size: bigint; inodes: bigint }> => usage(this.#pool, ours, name);
    try {
      return await ask();
    } catch (error) {
      if (!(await this.#isCorrected([name], relied, ours, error))) throw error;
    }
    return ask();
  }

  /** The name of the snapshot whose files a bind mount of ours shows; undefined for any other mount. */
  nameAt(mount: { type: string; source: string }, owner?: string): string | undefined {
    const { mounter, index } = this.#pool;
    if (mount.type !== 'bind' || !mount.source.endsWith(`/${ROOTFS}`)) return undefined;
    const dataset = mounter.datasetAt(mount.source.slice(0, -ROOTFS.length - 1));
    const snapshot = dataset === undefined ? undefined : index.get(dataset)?.snapshot;
    const current = snapshot === undefined ? undefined : index.current(this.#ownerOr(owner), snapshot.name);
    return current?.dataset === dataset ? snapshot?.name : undefined;
  }

  /**
   * Runs `work` on a mounted snapshot and its files, which nothing commits or removes meanwhile.
   * @throws NotFound
   */
  async using<T>(
    name: string,
    work: (node: Node & { snapshot: Snapshot }, rootfs: string) => Promise<T>,
    owner?: string,
  ): Promise<T> {
    return this.#sharing(name, owner, async (node) => work(node, await rootfsOf(this.#pool, node.dataset)));
  }

  /** Makes the files of two snapshots readable, to be compared; see diff/trees.ts. */
  async comparing<T>(
    names: { left: string | undefined; right: string },
    work: (trees: Trees) => Promise<T>,
    call?: CallOptions,
    owner?: string,
  ): Promise<T> {
    return withTrees(this.#pool, this.#ownerOr(owner), names, work, call);
  }

  /** The disk of the container that has this snapshot key in containerd's namespace. */
  findContainer(namespace: string, key: string, owner?: string): ContainerDisk | undefined {
    return findDisk(this.#pool, this.#ownerOr(owner), namespace, key);
  }

  /** Tells where a container's disk will be; see awaited.ts. */
  whenPlaced(namespace: string, key: string): { mount: Promise<BindMount | undefined>; close(): void } {
    return this.#awaited.when(namespace, key);
  }

  /** Points a container's name at a new clone of one of its checkpoints. See rewind.ts. */
  async rewind(name: string, from: string, properties: Properties = {}, owner?: string): Promise<Rewound> {
    const request = { owner: this.#ownerOr(owner), name, from, properties };
    return rewind(this.#pool, request);
  }

  /** Keeps an older generation that a rewind may still go back to where it is. One that is not there is no error. */
  holdGeneration(dataset: string): void {
    const node = this.#pool.index.get(dataset);
    if (node !== undefined) this.#pool.rewinding.add(node);
  }

  /** Lets a sweep have it. */
  releaseGeneration(dataset: string): void {
    const node = this.#pool.index.get(dataset);
    if (node !== undefined) this.#pool.rewinding.delete(node);
  }

  /** Puts a name back on an older dataset, as the `undo` of a rewind does. */
  async undoRewind(name: string, previous: string, owner?: string): Promise<void> {
    return undoRewind(this.#pool, { owner: this.#ownerOr(owner), name, previous });
  }

  /** Tells the index of a checkpoint's disk snapshot that was made. */
  noteCheckpoint(dataset: string, name: string, id: string): void {
    this.#pool.index.addSnapshot(`${dataset}@${name}`, id);
  }

  /** Tells it of one that was destroyed, or goes with the last of the clones that stand on it. */
  async forgetCheckpoint(dataset: string, name: string): Promise<void> {
    const { index } = this.#pool;
    const node = index.get(dataset);
    if (node === undefined) return;
    index.deleteSnapshot(`${dataset}/memory@${name}`); // known since a start
    if (index.clonesOfSnapshot(`${dataset}@${name}`).length > 0) index.retireSnapshot(`${dataset}@${name}`);
    else index.deleteSnapshot(`${dataset}@${name}`);
    if (!isLive(node) && !index.isNeeded(node)) this.#onReleased(dataset);
  }

  /** Names that a new snapshot of a container's disk must not have; see hand-over.ts. */
  snapshotNames(dataset: string): ReadonlySet<string> {
    return snapshotNames(this.#pool, dataset);
  }

  /** Names of the datasets that are clones of a ZFS snapshot. */
  clonesOf(snapshot: string): string[] {
    return this.#pool.index.clonesOfSnapshot(snapshot).map((node) => node.dataset);
  }

  /** Whether the next sweep after its grace time can destroy it though clones stand on it; see hand-over.ts. */
  isReplaceable(node: Node): boolean {
    return isReplaceable(this.#pool, node);
  }

  /** Every dataset below the root, for `stasis ls`, `df` and `adopt`. */
  datasets(): readonly Node[] {
    return [...this.#pool.index.nodes()];
  }

  /** The dataset that a ZFS snapshot is of. */
  nodeOf(snapshot: string): Node | undefined {
    return this.#pool.index.get(datasetOf(snapshot));
  }

  /** Destroys what was removed and is due; see remove.ts. Calls while one runs share its result. */
  async sweep(call?: CallOptions): Promise<Swept> {
    this.#sweeping ??= sweep(this.#pool, this.#grace, call).finally(() => {
      this.#sweeping = undefined;
    });
    this.#swept = await this.#sweeping;
    return this.#swept;
  }

  /** How the index is, for `stasis info`. */
  health(owner?: string): Health {
    return health(this.#pool, this.#ownerOr(owner), this.#swept);
  }

  /** Datasets of the index that the pool does not have: one listing. See gone.ts. @throws what zfs throws */
  async gone(call?: CallOptions): Promise<readonly string[]> {
    return (await findGone(this.#pool, call)).map(({ dataset }) => dataset);
  }

  /** Runs `work` while nothing else changes a snapshot. Must not call what takes the same name. */
  async withName<T>(name: string, work: () => Promise<T>, owner?: string): Promise<T> {
    return this.#pool.locks.run({ exclusive: [lockName(this.#ownerOr(owner), name)] }, work);
  }

  #ownerOr(owner: string | undefined): string {
    return owner ?? this.#owner;
  }

  #node(name: string, owner: string | undefined): Node & { snapshot: Snapshot } {
    const node = this.#pool.index.current(this.#ownerOr(owner), name);
    if (node?.snapshot === undefined) throw missing(name);
    return node as Node & { snapshot: Snapshot };
  }

  /** Runs `work` on a snapshot that nothing changes or removes meanwhile. @throws NotFound */
  async #sharing<T>(
    name: string,
    owner: string | undefined,
    work: (node: Node & { snapshot: Snapshot }) => Promise<T>,
  ): Promise<T> {
    const ours = this.#ownerOr(owner);
    const names = [lockName(ours, name)];
    const relied = (): Node[] => this.#pool.index.generations(ours, name);
    const run = (): Promise<T> =>
      this.#pool.locks.run({ shared: names }, async () => work(this.#node(name, owner)));
    try {
      return await run();
    } catch (error) {
      if (!(await this.#isCorrected([name], relied, ours, error))) throw error;
    }
    return run();
  }

  /** Whether something failed since a dataset that it relied on is gone; see gone.ts. Holds the names meanwhile. */
  async #isCorrected(
    names: readonly string[],
    relied: () => Node[],
    owner: string,
    error: unknown,
  ): Promise<boolean> {
    if (!(error instanceof NotFound)) return false;
    const exclusive = names.filter((name) => name !== '').map((name) => lockName(owner, name));
    return this.#pool.locks.run({ exclusive }, () => isCorrected(this.#pool, error, relied()));
  }
}

/** A yes is for ever: what a pool and a kernel can do stays. A no may be for want of memory or processes, and is asked again. */
function rememberYes(ask: (path: string) => Promise<boolean>): (path: string) => Promise<boolean> {
  let yes = false;
  return async (path) => (yes ||= await ask(path));
}
