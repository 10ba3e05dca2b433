import { cp, mkdir, rm } from 'node:fs/promises';
import { AlreadyExists, Internal, NotFound, ResourceExhausted, Unimplemented } from '../../../src/errors.ts';
import type { Mounter } from '../../../src/zfs/mounter.ts';
import { Busy, HasChildren, HasClones, ParentMissing } from '../../../src/zfs/errors.ts';
import type { ChangedObjects } from '../../../src/zfs/send-stream.ts';
import { checkDataset, checkProperty, checkSnapshot, datasetOf } from '../../../src/zfs/names.ts';
import type {
  ListOptions,
  PoolStatus,
  Properties,
  Property,
  Row,
  Zfs,
  ZfsKind,
} from '../../../src/zfs/zfs.ts';

interface Dataset {
  readonly properties: Map<string, string>;
  origin: string | undefined;
  readonly folder: string;
  /** In which order the datasets were made. */
  readonly made: number;
  /** Properties that came with it from elsewhere. */
  readonly received: Set<string>;
}

/**
 * ZFS in memory, with the rules that the snapshotter relies on: names, parents, clones that hold their origin,
 * user properties that are inherited by children and snapshots. Files live in one folder a dataset.
 */
export class FakeZfs implements Zfs {
  readonly kind: ZfsKind;
  readonly version = 'fake';
  readonly datasets = new Map<string, Dataset>();
  /** Datasets that cannot be renamed or destroyed now. */
  readonly busy = new Set<string>();
  freeBytes = 1e9;
  readonly #deferred = new Set<string>();
  readonly #folder: string;
  #serial = 0;

  constructor(folder: string, kind: ZfsKind, pool = 'tank') {
    this.kind = kind;
    this.#folder = folder;
    const root = {
      properties: new Map<string, string>(),
      origin: undefined,
      folder: `${folder}/pool`,
      made: 0,
    };
    this.datasets.set(pool, { ...root, received: new Set() });
  }

  folderOf(dataset: string): string | undefined {
    return this.datasets.get(dataset)?.folder;
  }

  async create(name: string, options: { properties?: Properties } = {}): Promise<void> {
    checkDataset(name);
    await this.#make(name, undefined, options.properties);
  }

  async clone(snapshot: string, target: string, options: { properties?: Properties } = {}): Promise<void> {
    checkSnapshot(snapshot);
    checkDataset(target);
    if (!this.datasets.has(snapshot)) throw new NotFound(`cannot open '${snapshot}'`, { subject: target });
    const { refquota } = options.properties ?? {};
    // As a test has set it, since files here have no blocks.
    const held = this.datasets.get(snapshot)?.properties.get('referenced') ?? '0';
    if (refquota !== undefined && BigInt(refquota) < BigInt(held))
      throw new ResourceExhausted(`cannot create '${target}': out of space`, { subject: target });
    await this.#make(target, snapshot, options.properties);
  }

  async snapshot(names: readonly string[], options: { properties?: Properties } = {}): Promise<void> {
    for (const name of names) {
      checkSnapshot(name);
      if (!this.datasets.has(datasetOf(name))) throw new NotFound(`cannot open '${datasetOf(name)}'`);
      await this.#make(name, datasetOf(name), options.properties);
    }
  }

  async destroy(name: string, options: { recursive?: boolean; defer?: boolean } = {}): Promise<void> {
    if (!this.datasets.has(name)) throw new NotFound(`cannot open '${name}'`, { subject: name });
    if (this.busy.has(name)) throw new Busy(`cannot destroy '${name}'`, { subject: name });
    const below = [...this.datasets.keys()].filter((other) => isBelow(other, name));
    if (below.length > 0 && options.recursive !== true) throw new HasChildren(`cannot destroy '${name}'`);
    const going = new Set([name, ...below]);
    const clone = [...this.datasets].find(
      ([other, { origin }]) =>
        origin !== undefined && !going.has(other) && going.has(origin) && !other.includes('@'),
    );
    if (clone !== undefined) {
      if (options.defer === true) {
        this.#deferred.add(name);
        return;
      }
      throw new HasClones(`cannot destroy '${name}': ${clone[0]} is a clone`, { subject: name });
    }
    for (const each of going) {
      const folder = this.datasets.get(each)?.folder;
      this.datasets.delete(each);
      if (folder !== undefined) await rm(folder, { recursive: true, force: true });
    }
    // A snapshot that was destroyed with -d goes with the last of its clones.
    for (const snapshot of [...this.#deferred]) {
      if ([...this.datasets.values()].some(({ origin }) => origin === snapshot)) continue;
      this.#deferred.delete(snapshot);
      this.datasets.delete(snapshot);
    }
  }

  async destroyIdempotent(
    name: string,
    options: { recursive?: boolean; defer?: boolean } = {},
  ): Promise<void> {
    if (this.datasets.has(name)) await this.destroy(name, options);
  }

  async promote(clone: string): Promise<void> {
    const promoted = this.datasets.get(clone);
    if (promoted === undefined) throw new NotFound(`cannot open '${clone}'`, { subject: clone });
    const { origin } = promoted;
    if (origin === undefined) throw new Internal(`cannot promote '${clone}': not a cloned filesystem`);
    const former = datasetOf(origin);
    const above = this.datasets.get(former);
    const last = this.datasets.get(origin)?.made ?? 0;
    const moving = [...this.datasets].flatMap(([name, { made }]) =>
      name.includes('@') && datasetOf(name) === former && made <= last ? [name] : [],
    );
    const target = (name: string): string => clone + name.slice(former.length);
    const common = moving.find((name) => this.datasets.has(target(name)));
    if (common !== undefined) throw new Internal(`cannot promote '${clone}': ${common} conflicts`);
    promoted.origin = above?.origin;
    if (above !== undefined) above.origin = origin;
    for (const name of moving) {
      const snapshot = this.datasets.get(name);
      this.datasets.delete(name);
      if (snapshot !== undefined) this.datasets.set(target(name), { ...snapshot, origin: clone });
      if (this.#deferred.delete(name)) this.#deferred.add(target(name));
      for (const dataset of this.datasets.values())
        if (dataset.origin === name) dataset.origin = target(name);
    }
  }

  async rename(from: string, to: string): Promise<void> {
    if (!this.datasets.has(from)) throw new NotFound(`cannot open '${from}'`);
    if (this.busy.has(from)) throw new Busy(`cannot rename '${from}'`, { subject: from });
    this.#assertFree(to);
    for (const [name, dataset] of [...this.datasets]) {
      if (name !== from && !isBelow(name, from)) continue;
      this.datasets.delete(name);
      this.datasets.set(to + name.slice(from.length), dataset);
    }
    for (const dataset of this.datasets.values()) {
      if (dataset.origin !== undefined && (dataset.origin === from || isBelow(dataset.origin, from))) {
        dataset.origin = to + dataset.origin.slice(from.length);
      }
    }
  }

  async set(name: string, properties: Properties): Promise<void> {
    const dataset = this.datasets.get(name);
    if (dataset === undefined) throw new NotFound(`cannot open '${name}'`);
    for (const [property, value] of Object.entries(properties)) {
      checkProperty(property, value);
      dataset.properties.set(property, value);
      dataset.received.delete(property);
    }
  }

  /** What `zfs send -R FROM | zfs receive TO` makes: a copy of all at and below it, with properties whose source says so. */
  async receive(from: string, to: string): Promise<void> {
    this.#assertFree(to);
    for (const [name, dataset] of [...this.datasets]) {
      if (name !== from && !isBelow(name, from)) continue;
      const target = to + name.slice(from.length);
      const { origin } = dataset;
      const within = origin !== undefined && (origin === from || isBelow(origin, from));
      await this.#make(target, within ? to + origin.slice(from.length) : undefined);
      const made = this.datasets.get(target);
      for (const [property, value] of dataset.properties) {
        made?.properties.set(property, value);
        made?.received.add(property);
      }
    }
  }

  async inherit(name: string, property: string): Promise<void> {
    this.datasets.get(name)?.properties.delete(property);
  }

  async list(options: ListOptions): Promise<Row[]> {
    if (!this.datasets.has(options.root)) throw new NotFound(`cannot open '${options.root}'`);
    const names = [...this.datasets.keys()].filter(
      (name) => name === options.root || (options.depth !== 0 && isBelow(name, options.root)),
    );
    const rows: Row[] = names.map((name) => {
      const properties = new Map<string, Property>();
      for (const property of options.properties) {
        const found = this.#property(name, property);
        if (found === undefined) continue;
        if (options.setOnly === true && found.source !== 'local' && found.source !== 'received') continue;
        if (options.ownOnly !== true || found.source !== 'inherited') properties.set(property, found);
      }
      return { name, type: name.includes('@') ? 'snapshot' : 'filesystem', properties };
    });
    return rows.filter(
      ({ type, properties }) =>
        options.types.includes(type) && (options.setOnly !== true || properties.size > 0),
    );
  }

  async changes(): Promise<ChangedObjects> {
    // Its clones are copies: their files have inode numbers of their own.
    throw new Unimplemented('snapshots cannot be compared in memory');
  }

  async mount(): Promise<void> {
    // The folder is always there.
  }

  async poolStatus(pool: string): Promise<PoolStatus> {
    return { name: pool, health: 'ONLINE', sizeBytes: 1e9, freeBytes: this.freeBytes };
  }

  async pools(): Promise<string[]> {
    return [...this.datasets.keys()].filter((name) => !/[/@]/.test(name));
  }

  #property(name: string, property: string): Property | undefined {
    const dataset = this.datasets.get(name);
    if (property === 'createtxg' || property === 'creation') {
      return { value: String(dataset?.made ?? 0), source: 'none' };
    }
    if (property === 'defer_destroy') {
      if (!name.includes('@')) return undefined;
      return { value: this.#deferred.has(name) ? 'on' : 'off', source: 'none' };
    }
    if (property === 'origin') {
      return dataset?.origin === undefined || name.includes('@')
        ? undefined
        : { value: dataset.origin, source: 'none' };
    }
    const own = dataset?.properties.get(property);
    if (own !== undefined)
      return { value: own, source: dataset?.received.has(property) === true ? 'received' : 'local' };
    const parent = name.includes('@') ? datasetOf(name) : name.slice(0, Math.max(0, name.lastIndexOf('/')));
    const inherited = parent === '' ? undefined : this.#property(parent, property);
    return inherited === undefined ? undefined : { value: inherited.value, source: 'inherited' };
  }

  async #make(name: string, from: string | undefined, properties: Properties = {}): Promise<void> {
    this.#assertFree(name);
    for (const [property, value] of Object.entries(properties)) checkProperty(property, value);
    const made = ++this.#serial;
    const folder = `${this.#folder}/${made}`;
    const source = from === undefined ? undefined : this.datasets.get(from)?.folder;
    const all = new Map(Object.entries(properties));
    this.datasets.set(name, { properties: all, origin: from, folder, made, received: new Set() });
    if (source === undefined) await mkdir(folder, { recursive: true });
    else
      await cp(source, folder, {
        recursive: true,
        preserveTimestamps: true,
        verbatimSymlinks: true,
        mode: 0,
      });
  }

  #assertFree(name: string): void {
    if (this.datasets.has(name))
      throw new AlreadyExists(`cannot create '${name}': dataset already exists`, { subject: name });
    if (name.includes('@')) return;
    if (!this.datasets.has(name.slice(0, name.lastIndexOf('/'))))
      throw new ParentMissing(`cannot create '${name}'`, { subject: name });
  }
}

/** Mounts of a FakeZfs: its folders. Counts what is mounted, as the real one would be. */
export class FakeMounter implements Mounter {
  readonly mounted = new Set<string>();
  readonly #zfs: FakeZfs;

  constructor(zfs: FakeZfs) {
    this.#zfs = zfs;
  }

  async mount(dataset: string): Promise<string> {
    const folder = this.#zfs.folderOf(dataset);
    if (folder === undefined) throw new NotFound(`dataset ${dataset} does not exist`);
    this.mounted.add(dataset);
    return folder;
  }

  async unmount(dataset: string): Promise<void> {
    for (const each of [...this.mounted])
      if (each === dataset || each.startsWith(`${dataset}/`)) this.mounted.delete(each);
  }

  async answer<T>(_dataset: string, call: () => Promise<T>): Promise<T> {
    return call();
  }

  mountpoint(dataset: string): string {
    return this.#zfs.folderOf(dataset) ?? `/nowhere/${dataset}`;
  }

  datasetAt(path: string): string | undefined {
    return [...this.#zfs.datasets].find(([, { folder }]) => folder === path)?.[0];
  }

  birthProperties(): Properties {
    return { mountpoint: '/fake' };
  }

  made(): void {
    // Its folder is there.
  }

  forget(dataset: string): void {
    this.mounted.delete(dataset);
  }
}

function isBelow(name: string, above: string): boolean {
  return name.startsWith(`${above}/`) || name.startsWith(`${above}@`);
}
