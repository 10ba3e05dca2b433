import { datasetOf, snapshotOf } from '../src/zfs/names.ts';
import { LAYER, type DatasetState, type Snapshot } from './snapshot.ts';

/** A ZFS snapshot, as the index knows it. */
export interface Held {
  /** The checkpoint that it is the disk of. */
  readonly checkpoint: string | undefined;
  /** It was destroyed while clones stood on it, and goes with the last of them. */
  readonly retired: boolean;
}

/** A file system below the root, as the index knows it. */
export interface Node {
  dataset: string;
  /** The snapshot that it is a clone of. */
  origin: string | undefined;
  /** What containerd's name stands for it; undefined for what is no snapshot of containerd's (a memory child, say). */
  snapshot: Snapshot | undefined;
  state: DatasetState;
  /** Seconds since 1970 at which it left the live state. */
  since: number;
  /** Its ZFS snapshots by the part after the `@`. */
  readonly snapshots: Map<string, Held>;
  /** Bytes that its files refer to, the parent's included; of the layer snapshot once committed. */
  referenced: bigint;
  /** Files and folders, the parent's included; undefined where nobody has counted them yet. */
  inodes: bigint | undefined;
  /** Whether the pool has the number too. */
  inodesStored: boolean;
  /** The labels property as it stands in the pool. */
  labelHead: string | undefined;
  inTrash: boolean;
  /** It came by `zfs receive`, and nobody has taken it over: not in use here, whoever's it says it is. */
  received: boolean;
  /** The database of the containerd that it belongs to was lost, and the present one does not know it; see lost.ts. */
  lost: boolean;
  /** Why it describes no snapshot though it has properties of one: nobody uses it then. Undefined for all others. */
  fault: string | undefined;
}

/**
 * All datasets below the root, in memory: which of them is the current snapshot of each owner's name, who
 * descends from whom. Holds no I/O; changes are made after the pool was changed.
 *
 * Invariants: `current` holds live nodes alone, for each owner and name the one with the highest generation;
 * `children` counts current nodes by parent name; `clones` holds every node that has an origin.
 */
export class SnapshotIndex {
  readonly #nodes = new Map<string, Node>();
  readonly #current = new Map<string, Node>();
  readonly #children = new Map<string, number>();
  readonly #clones = new Map<string, Set<Node>>();
  readonly #checkpoints = new Map<string, string>();

  get(dataset: string): Node | undefined {
    return this.#nodes.get(dataset);
  }

  has(dataset: string): boolean {
    return this.#nodes.has(dataset);
  }

  nodes(): Iterable<Node> {
    return this.#nodes.values();
  }

  get size(): number {
    return this.#nodes.size;
  }

  current(owner: string, name: string): Node | undefined {
    return this.#current.get(identity(owner, name));
  }

  /** The current snapshots of one owner. */
  *list(owner: string): Generator<Node & { snapshot: Snapshot }> {
    for (const node of this.#current.values()) {
      if (node.snapshot?.owner === owner) yield node as Node & { snapshot: Snapshot };
    }
  }

  /** How many current snapshots name this one as their parent. */
  children(owner: string, name: string): number {
    return this.#children.get(identity(owner, name)) ?? 0;
  }

  /** The ZFS snapshot that is a checkpoint's disk. */
  checkpoint(id: string): string | undefined {
    return this.#checkpoints.get(id);
  }

  checkpointsOf(node: Node): string[] {
    return [...node.snapshots.values()].flatMap(({ checkpoint }) =>
      checkpoint === undefined ? [] : [checkpoint],
    );
  }

  /** Datasets cloned from any snapshot of this one. */
  clonesOf(node: Node): Node[] {
    return [...node.snapshots.keys()].flatMap((name) => [
      ...(this.#clones.get(`${node.dataset}@${name}`) ?? []),
    ]);
  }

  /** Whether checkpoints or clones need this dataset, or one below it. */
  isNeeded(node: Node): boolean {
    return this.tree(node.dataset).some(
      (each) => this.checkpointsOf(each).length > 0 || this.clonesOf(each).length > 0,
    );
  }

  /** A dataset and those below it. */
  tree(dataset: string): Node[] {
    const node = this.#nodes.get(dataset);
    // Only containers have anything below them, and little: a scan of all would make Remove cost what the pool holds.
    const memory = this.#nodes.get(`${dataset}/memory`);
    return [node, memory].filter((each) => each !== undefined);
  }

  /** Every live dataset of an owner's name, current or older. */
  generations(owner: string, name: string): Node[] {
    return [...this.#nodes.values()].filter(
      (node) => isLive(node) && node.snapshot?.owner === owner && node.snapshot.name === name,
    );
  }

  add(node: Node): void {
    this.#nodes.set(node.dataset, node);
    if (node.origin !== undefined) this.#clonesAt(node.origin).add(node);
    for (const [name, { checkpoint }] of node.snapshots) this.#indexCheckpoint(node, name, checkpoint);
    this.#promote(node);
  }

  delete(dataset: string): void {
    for (const node of [...this.#below(dataset)]) {
      this.#demote(node);
      this.#nodes.delete(node.dataset);
      if (node.origin !== undefined) this.#dropClone(node.origin, node);
      for (const { checkpoint } of node.snapshots.values()) this.#forget(checkpoint, node);
    }
  }

  /** Follows `zfs rename`; origins that name the dataset's snapshots follow too. */
  rename(from: string, to: string, changes: { inTrash: boolean; since: number }): void {
    for (const node of [...this.#below(from)]) {
      this.#demote(node);
      this.#nodes.delete(node.dataset);
      const name = to + node.dataset.slice(from.length);
      for (const [snapshot, { checkpoint }] of node.snapshots) {
        this.#moveClones(`${node.dataset}@${snapshot}`, `${name}@${snapshot}`);
        if (checkpoint !== undefined) this.#checkpoints.set(checkpoint, `${name}@${snapshot}`);
      }
      node.dataset = name;
      if (node.snapshot !== undefined) node.snapshot = { ...node.snapshot, dataset: name };
      node.inTrash = changes.inTrash;
      node.since = changes.since;
      this.#nodes.set(name, node);
      this.#promote(node);
    }
  }

  /** Changes what a node is: its snapshot (Commit, Update) or its state (Remove, rewind). */
  change(
    node: Node,
    changes: Partial<Pick<Node, 'snapshot' | 'state' | 'since' | 'labelHead' | 'received' | 'lost'>>,
  ): void {
    this.#demote(node);
    Object.assign(node, changes);
    this.#promote(node);
  }

  addSnapshot(fullName: string, checkpoint: string | undefined): void {
    const node = this.#nodes.get(datasetOf(fullName));
    if (node === undefined) return;
    node.snapshots.set(snapshotOf(fullName), { checkpoint, retired: false });
    this.#indexCheckpoint(node, snapshotOf(fullName), checkpoint);
  }

  deleteSnapshot(fullName: string): void {
    const node = this.#nodes.get(datasetOf(fullName));
    const known = node?.snapshots.get(snapshotOf(fullName));
    if (node === undefined || known === undefined) return;
    node.snapshots.delete(snapshotOf(fullName));
    if (node.snapshot !== undefined) this.#forget(known.checkpoint, node);
  }

  /** A snapshot that was destroyed while clones stand on it: it is no checkpoint any more. */
  retireSnapshot(fullName: string): void {
    this.deleteSnapshot(fullName);
    const node = this.#nodes.get(datasetOf(fullName));
    node?.snapshots.set(snapshotOf(fullName), { checkpoint: undefined, retired: true });
  }

  /** After a clone has gone: a retired snapshot went with its last one. */
  dropRetired(fullName: string | undefined): void {
    if (fullName === undefined || this.#clones.has(fullName)) return;
    const snapshots = this.#nodes.get(datasetOf(fullName))?.snapshots;
    if (snapshots?.get(snapshotOf(fullName))?.retired === true) snapshots.delete(snapshotOf(fullName));
  }

  /** Follows `zfs promote` of a clone, which takes these snapshots of what it was cloned from over, the last of them its origin. */
  promote(clone: Node, names: readonly string[]): void {
    const { origin } = clone;
    const former = origin === undefined ? undefined : this.#nodes.get(datasetOf(origin));
    if (origin === undefined || former === undefined) return;
    for (const name of names) {
      const held = former.snapshots.get(name);
      if (held === undefined) continue;
      former.snapshots.delete(name);
      clone.snapshots.set(name, held);
      this.#indexCheckpoint(clone, name, held.checkpoint);
      this.#moveClones(`${former.dataset}@${name}`, `${clone.dataset}@${name}`);
    }
    const above = former.origin;
    former.origin = `${clone.dataset}@${snapshotOf(origin)}`;
    this.#clonesAt(former.origin).add(former);
    this.#dropClone(former.origin, clone);
    clone.origin = above;
    if (above === undefined) return;
    this.#clonesAt(above).add(clone);
    this.#dropClone(above, former);
  }

  /** Datasets cloned from one ZFS snapshot. */
  clonesOfSnapshot(fullName: string): Node[] {
    return [...(this.#clones.get(fullName) ?? [])];
  }

  /** The layer snapshot of a committed dataset. */
  layerOf(node: Node): string {
    return `${node.dataset}@${LAYER}`;
  }

  #promote(node: Node): void {
    const { snapshot } = node;
    if (snapshot === undefined || !isLive(node)) return;
    const id = identity(snapshot.owner, snapshot.name);
    const present = this.#current.get(id);
    if (present !== undefined && (present.snapshot?.generation ?? 0) > snapshot.generation) return;
    if (present !== undefined) this.#count(present, -1);
    this.#current.set(id, node);
    this.#count(node, 1);
  }

  #demote(node: Node): void {
    const { snapshot } = node;
    if (snapshot === undefined) return;
    const id = identity(snapshot.owner, snapshot.name);
    if (this.#current.get(id) !== node) return;
    this.#current.delete(id);
    this.#count(node, -1);
    if (snapshot.generation <= 1) return; // no older one can be live: spares the scan below
    const older = this.generations(snapshot.owner, snapshot.name).filter((each) => each !== node);
    const next = older.sort((a, b) => (b.snapshot?.generation ?? 0) - (a.snapshot?.generation ?? 0))[0];
    if (next === undefined) return;
    this.#current.set(id, next);
    this.#count(next, 1);
  }

  #count(node: Node, by: 1 | -1): void {
    const { snapshot } = node;
    if (snapshot === undefined || snapshot.parent === '') return;
    const id = identity(snapshot.owner, snapshot.parent);
    const count = (this.#children.get(id) ?? 0) + by;
    if (count === 0) this.#children.delete(id);
    else this.#children.set(id, count);
  }

  #below(dataset: string): Node[] {
    return this.tree(dataset);
  }

  #clonesAt(origin: string): Set<Node> {
    const known = this.#clones.get(origin) ?? new Set<Node>();
    this.#clones.set(origin, known);
    return known;
  }

  #moveClones(from: string, to: string): void {
    const clones = this.#clones.get(from);
    if (clones === undefined) return;
    this.#clones.delete(from);
    this.#clones.set(to, clones);
    for (const clone of clones) clone.origin = to;
  }

  #dropClone(origin: string, node: Node): void {
    const known = this.#clones.get(origin);
    known?.delete(node);
    if (known?.size === 0) this.#clones.delete(origin);
  }

  #indexCheckpoint(node: Node, name: string, checkpoint: string | undefined): void {
    // The memory child's snapshot carries the same id; the disk is the container's own.
    if (checkpoint === undefined || node.snapshot === undefined) return;
    // A copy that came back from elsewhere has the same ids.
    const copy = node.received || node.state === 'adopted';
    if (copy && this.#checkpoints.has(checkpoint)) return;
    this.#checkpoints.set(checkpoint, `${node.dataset}@${name}`);
  }

  #forget(checkpoint: string | undefined, node: Node): void {
    if (checkpoint === undefined) return;
    const at = this.#checkpoints.get(checkpoint);
    if (at === undefined || datasetOf(at) !== node.dataset) return;
    this.#checkpoints.delete(checkpoint);
    // A copy that came from elsewhere has the same id, and stands in for it.
    for (const other of this.#nodes.values())
      if (other !== node)
        for (const [name, held] of other.snapshots)
          if (held.checkpoint === checkpoint) this.#indexCheckpoint(other, name, checkpoint);
  }
}

/** Whether it was to be a snapshot, and cannot be understood. */
export function isUnreadable({ fault, snapshot }: Node): boolean {
  return fault !== undefined && snapshot === undefined;
}

export function isLive(node: Node): boolean {
  return node.state === 'live' && !node.inTrash && !node.received && !node.lost;
}

/** Whether it was in use elsewhere, or for another containerd, and can be taken over. */
export function isForeign(node: Node, owner: string): boolean {
  const { snapshot, state, inTrash, received, lost } = node;
  if (snapshot === undefined || state !== 'live' || inTrash) return false;
  return received || lost || snapshot.owner !== owner;
}

function identity(owner: string, name: string): string {
  return `${owner}\0${name}`;
}
