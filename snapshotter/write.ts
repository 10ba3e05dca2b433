import { chmod, mkdir, statfs } from 'node:fs/promises';
import {
  AlreadyExists,
  FailedPrecondition,
  hasErrno,
  InvalidArgument,
  messageOf,
  NotFound,
} from '../src/errors.ts';
import type { CallOptions, Properties } from '../src/zfs/zfs.ts';
import type { Node } from './index.ts';
import { ensureContainer } from './load.ts';
import { lockName, withReserved, type Pool } from './pool.ts';
import { encodeText, labelProperties, nextSet, property, toProperties } from './properties.ts';
import {
  CHECKPOINT_LABEL,
  LAYER,
  MAX_SIZE_LABEL,
  REF_LABEL,
  ROOTFS,
  type Labels,
  type Snapshot,
} from './snapshot.ts';

export interface PrepareRequest {
  readonly owner: string;
  readonly name: string;
  readonly kind: 'active' | 'view';
  /** Empty: none. */
  readonly parent: string;
  readonly labels: Labels;
}

/** Names that another command took between our look at the index and the making; each costs one more command. */
const MAX_PLACES = 5;

/**
 * Makes a snapshot on its parent, or on a checkpoint's disk where the labels name one: one `zfs` command.
 * @returns its dataset, mounted
 * @throws AlreadyExists for the name, or for a layer that is in the pool already; NotFound InvalidArgument for the
 *   parent; what zfs throws
 */
export async function prepare(pool: Pool, request: PrepareRequest, call?: CallOptions): Promise<Node> {
  const { owner, name, parent } = request;
  if (name === '') throw new InvalidArgument('a snapshot needs a key', { subject: 'key' });
  const shared = parent === '' ? [] : [lockName(owner, parent)];
  return pool.locks.run({ exclusive: [lockName(owner, name)], shared }, async () => {
    if (pool.index.current(owner, name) !== undefined) throw exists(name);
    const origin = originFor(pool, request);
    assertNotPresent(pool, request);
    const now = pool.now();
    const labels = filled(request.labels);
    const snapshot = {
      name,
      kind: request.kind,
      parent,
      labels,
      created: now,
      updated: now,
      owner,
      generation: 1,
    };
    return makeDataset(pool, { snapshot, origin, extra: sizeLimit(request.labels) }, call);
  });
}

export interface Making {
  readonly snapshot: Omit<Snapshot, 'dataset'>;
  /** The ZFS snapshot to clone; undefined for an empty file system. */
  readonly origin: string | undefined;
  readonly extra: Properties;
  /** Where it goes, if not where its name says. */
  readonly place?: (taken: (dataset: string) => boolean) => string;
}

/** Makes and mounts a dataset and adds it to the index; what fails after the making is undone. */
export async function makeDataset(pool: Pool, making: Making, call?: CallOptions): Promise<Node> {
  const { snapshot } = making;
  const place = making.place ?? ((taken) => pool.layout.place(snapshot.name, snapshot.labels, taken));
  const strangers = new Set<string>();
  for (let attempt = 1; ; attempt++) {
    try {
      return await withReserved(pool, place, (dataset) => makeAt(pool, making, dataset, call), strangers);
    } catch (error) {
      if (!(error instanceof AlreadyExists) || attempt === MAX_PLACES) throw error;
      if (error.subject !== undefined) strangers.add(error.subject); // made behind our back: take the next name
    }
  }
}

async function makeAt(
  pool: Pool,
  making: Making,
  dataset: string,
  call: CallOptions | undefined,
): Promise<Node> {
  const { zfs, mounter, index } = pool;
  const { snapshot, origin } = making;
  const parent = dataset.slice(0, dataset.lastIndexOf('/'));
  if (!index.has(parent)) {
    await ensureContainer(pool, parent).catch((error: unknown) => {
      if (!(error instanceof AlreadyExists)) throw error;
    });
  }
  const properties: Properties = {
    ...mounter.birthProperties(dataset, origin === undefined ? 'create' : 'clone'),
    ...making.extra,
    ...toProperties(snapshot),
  };
  try {
    if (origin === undefined) await zfs.create(dataset, { properties }, call);
    else await zfs.clone(origin, dataset, { properties }, call);
    await rootfsOf(pool, dataset);
    const node: Node = {
      dataset,
      origin,
      snapshot: { ...snapshot, dataset },
      state: 'live',
      since: 0,
      snapshots: new Map(),
      referenced: 0n,
      inodes: undefined,
      labelHead: properties[property.labels],
      inTrash: false,
    };
    index.add(node);
    return node;
  } catch (error) {
    if (!(error instanceof AlreadyExists) && !(error instanceof NotFound)) {
      await undoMake(pool, dataset, snapshot.name);
    }
    throw error;
  }
}

/** Destroys what a failed or cancelled command may have made, if it carries our name: it may be somebody else's. */
async function undoMake(pool: Pool, dataset: string, name: string): Promise<void> {
  try {
    const [row] = await pool.zfs.list({
      root: dataset,
      depth: 0,
      types: ['filesystem'],
      properties: [property.key],
      ownOnly: true,
    });
    if (row?.properties.get(property.key)?.value !== encodeText(name)) return;
    await pool.mounter.unmount(dataset);
    await pool.zfs.destroyIdempotent(dataset);
  } catch (error) {
    if (error instanceof NotFound) return;
    pool.log.warn('a half-made dataset is left for containerd to remove', {
      dataset,
      error: messageOf(error),
    });
  }
}

/** The folder with the files of a dataset; mounts it, and makes the folder where a crash left it out. */
export async function rootfsOf(pool: Pool, dataset: string): Promise<string> {
  const path = `${await pool.mounter.mount(dataset)}/${ROOTFS}`;
  try {
    await mkdir(path);
    await chmod(path, 0o755); // whatever the umask
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
  }
  return path;
}

/**
 * Makes an active snapshot a parent for others under a new name: one `zfs snapshot` that carries all of it.
 * @throws AlreadyExists for the name, NotFound for the key, FailedPrecondition where it is not active
 */
export async function commit(
  pool: Pool,
  request: { owner: string; name: string; key: string; labels: Labels; parent: string },
  call?: CallOptions,
): Promise<void> {
  const { owner, name, key } = request;
  if (name === '') throw new InvalidArgument('a committed snapshot needs a name', { subject: 'name' });
  await pool.locks.run({ exclusive: [lockName(owner, key), lockName(owner, name)] }, async () => {
    if (pool.index.current(owner, name) !== undefined) throw exists(name);
    const node = pool.index.current(owner, key);
    const active = node?.snapshot;
    if (node === undefined || active === undefined) throw missing(key);
    if (active.kind !== 'active') {
      throw new FailedPrecondition(`snapshot ${key} is ${active.kind}, not active`, { subject: key });
    }
    if (request.parent !== '' && request.parent !== active.parent) {
      // Only the capability `rebase` would allow this, and a clone cannot change what it was cloned from.
      throw new InvalidArgument(`snapshot ${key} has the parent ${active.parent}, not ${request.parent}`, {
        subject: key,
      });
    }
    const now = pool.now();
    const committed: Snapshot = {
      ...active,
      name,
      kind: 'committed',
      labels: filled(request.labels),
      created: now,
      updated: now,
      generation: 1,
    };
    const properties = toProperties(committed);
    const rootfs = await rootfsOf(pool, node.dataset);
    await pool.syncfs(rootfs);
    await pool.zfs.snapshot([`${node.dataset}@${LAYER}`], { properties }, call);
    pool.index.addSnapshot(`${node.dataset}@${LAYER}`, undefined);
    pool.index.change(node, { snapshot: committed, labelHead: properties[property.labels] });
    try {
      await measure(node, rootfs);
      await pool.mounter.unmount(node.dataset);
    } catch (error) {
      pool.log.warn('a committed layer stays mounted', { dataset: node.dataset, error: messageOf(error) });
    }
  });
}

/**
 * Changes labels: `paths` undefined or `labels` replaces all, `labels.k` sets one, an empty value deletes it.
 * @throws NotFound; InvalidArgument for any other path
 */
export async function update(
  pool: Pool,
  request: { owner: string; name: string; labels: Labels; paths: readonly string[] | undefined },
  call?: CallOptions,
): Promise<Snapshot> {
  const { owner, name } = request;
  return pool.locks.run({ exclusive: [lockName(owner, name)] }, async () => {
    const node = pool.index.current(owner, name);
    const before = node?.snapshot;
    if (node === undefined || before === undefined) throw missing(name);
    const labels = changedLabels(before.labels, request.labels, request.paths);
    const snapshot: Snapshot = { ...before, labels, updated: pool.now() };
    const properties = labelProperties(labels, snapshot.updated, nextSet(node.labelHead));
    const target = before.kind === 'committed' ? pool.index.layerOf(node) : node.dataset;
    await pool.zfs.set(target, properties, call);
    pool.index.change(node, { snapshot, labelHead: properties[property.labels] });
    return snapshot;
  });
}

/** Bytes and inodes that a mounted dataset refers to, its parent's included; exact once a transaction ended. */
export async function measure(node: Node, rootfs: string): Promise<void> {
  const status = await statfs(rootfs, { bigint: true });
  node.referenced = (status.blocks - status.bfree) * status.bsize;
  node.inodes = status.files - status.ffree;
}

export function missing(name: string): NotFound {
  return new NotFound(`snapshot ${name} does not exist`, { subject: name });
}

function exists(name: string): AlreadyExists {
  return new AlreadyExists(`snapshot ${name} already exists`, { subject: name });
}

function originFor(pool: Pool, { owner, parent, labels }: PrepareRequest): string | undefined {
  const node = parent === '' ? undefined : pool.index.current(owner, parent);
  if (parent !== '') {
    if (node?.snapshot === undefined)
      throw new NotFound(`parent snapshot ${parent} does not exist`, { subject: parent });
    if (node.snapshot.kind !== 'committed') {
      throw new InvalidArgument(`parent snapshot ${parent} is ${node.snapshot.kind}, not committed`, {
        subject: parent,
      });
    }
  }
  const checkpoint = labels[CHECKPOINT_LABEL];
  if (checkpoint === undefined) return node === undefined ? undefined : pool.index.layerOf(node);
  const disk = pool.index.checkpoint(checkpoint);
  if (disk === undefined)
    throw new NotFound(`checkpoint ${checkpoint} does not exist`, { subject: checkpoint });
  return disk;
}

/**
 * The remote snapshot protocol: a layer that is in the pool already, on the same parent, is not fetched again.
 * containerd then looks for it by this label and parent; core/metadata/snapshot.go.
 */
function assertNotPresent(pool: Pool, { owner, kind, parent, labels }: PrepareRequest): void {
  const target = labels[REF_LABEL];
  if (target === undefined || kind === 'view') return;
  for (const { snapshot } of pool.index.list(owner)) {
    if (
      snapshot.kind === 'committed' &&
      snapshot.parent === parent &&
      snapshot.labels[REF_LABEL] === target
    ) {
      throw new AlreadyExists(`layer ${target} is in the pool already, as ${snapshot.name}`, {
        subject: target,
      });
    }
  }
}

function sizeLimit(labels: Labels): Properties {
  const limit = labels[MAX_SIZE_LABEL];
  if (limit === undefined) return {};
  if (!/^[1-9]\d{0,18}$/.test(limit)) {
    throw new InvalidArgument(`label ${MAX_SIZE_LABEL} is ${JSON.stringify(limit)}, not a number of bytes`, {
      subject: MAX_SIZE_LABEL,
    });
  }
  return { refquota: limit };
}

function changedLabels(before: Labels, given: Labels, paths: readonly string[] | undefined): Labels {
  if (paths === undefined || paths.length === 0) return filled(given);
  let labels: Record<string, string> = { ...before };
  for (const path of paths) {
    if (path === 'labels') labels = { ...given };
    else if (path.startsWith('labels.')) labels[path.slice(7)] = given[path.slice(7)] ?? '';
    else throw new InvalidArgument(`${path} of a snapshot cannot be changed`, { subject: path });
  }
  return filled(labels);
}

/** An empty value deletes a label. */
function filled(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== ''));
}
