import { chmod, lstat, mkdir } from 'node:fs/promises';
import {
  AlreadyExists,
  DeadlineExceeded,
  hasErrno,
  messageOf,
  NotFound,
  Unavailable,
} from '../src/errors.ts';
import { ZfsUnavailable } from '../src/zfs/errors.ts';
import type { CallOptions, Properties } from '../src/zfs/zfs.ts';
import type { Node } from './index.ts';
import { ensureContainer } from './load.ts';
import { withReserved, type Pool } from './pool.ts';
import { encodeText, property, toProperties } from './properties.ts';
import { ROOTFS, type Labels, type Snapshot } from './snapshot.ts';

/** Names that another command took between our look at the index and the making; each costs one more command. */
const MAX_PLACES = 5;

export interface Making {
  readonly snapshot: Omit<Snapshot, 'dataset'>;
  /** The ZFS snapshot to clone; undefined for an empty file system. */
  readonly origin: string | undefined;
  readonly extra: Properties;
  /** Where it goes, if not where its name says. */
  readonly place?: (taken: (dataset: string) => boolean) => string;
}

/** A dataset that is made, mounted and in the index. */
export interface Made {
  readonly node: Node;
  /** Path of its files. */
  readonly rootfs: string;
}

/** Makes and mounts a dataset and adds it to the index; what fails after the making is undone. */
export async function makeDataset(pool: Pool, making: Making, call?: CallOptions): Promise<Made> {
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
): Promise<Made> {
  const { zfs, mounter, index } = pool;
  const { snapshot, origin } = making;
  const parent = dataset.slice(0, dataset.lastIndexOf('/'));
  const properties: Properties = {
    ...mounter.birthProperties(dataset),
    ...making.extra,
    ...toProperties(snapshot),
  };
  if (!index.has(parent)) {
    await ensureContainer(pool, parent).catch((error: unknown) => {
      if (!(error instanceof AlreadyExists)) throw error;
    });
  }
  pool.placing(snapshot, `${mounter.mountpoint(dataset)}/${ROOTFS}`);
  try {
    if (origin === undefined) await zfs.create(dataset, { properties }, call);
    else await zfs.clone(origin, dataset, { properties }, call);
    mounter.made(dataset);
    const rootfs = await rootfsOf(pool, dataset);
    const node: Node = {
      dataset,
      origin,
      snapshot: { ...snapshot, dataset },
      state: 'live',
      since: 0,
      snapshots: new Map(),
      referenced: 0n,
      inodes: undefined,
      inodesStored: false,
      labelHead: properties[property.labels],
      inTrash: false,
      received: false,
      lost: false,
      fault: undefined,
    };
    index.add(node);
    return { node, rootfs };
  } catch (error) {
    // Of a command or a file system that gave no answer nothing can be said yet: see unsettled.ts.
    if (error instanceof DeadlineExceeded || error instanceof Unavailable) pool.unsettled.add(dataset);
    else if (!(error instanceof AlreadyExists) && !(error instanceof NotFound)) {
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

/**
 * The folder with the files of a dataset; mounts it, and makes the folder where a crash left it out. Looks before it
 * makes: a pool whose device fails answers what it knows, and lets a mkdir wait, though the folder is there.
 */
export async function rootfsOf(pool: Pool, dataset: string): Promise<string> {
  const path = `${await pool.mounter.mount(dataset)}/${ROOTFS}`;
  await pool.mounter.answer(dataset, () => makeRootfs(path));
  return path;
}

async function makeRootfs(path: string): Promise<void> {
  try {
    await lstat(path);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    // Not a recursive one, which hides a quota's refusal behind ENOENT.
    await mkdir(path).catch((failure: unknown) => {
      if (!hasErrno(failure, 'EEXIST')) throw failure; // another caller may make it too
    });
    await chmod(path, 0o755); // whatever the umask
  }
}

export function missing(name: string): NotFound {
  return new NotFound(`snapshot ${name} does not exist`, { subject: name });
}

export function exists(name: string): AlreadyExists {
  return new AlreadyExists(`snapshot ${name} already exists`, { subject: name });
}

/** An empty value deletes a label. */
export function filled(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== ''));
}

/**
 * Writes out what of a dataset's files is in memory alone: what went through mappings is in no snapshot before.
 * @throws ZfsUnavailable where the pool takes no writes
 */
export async function syncFiles(pool: Pool, dataset: string, rootfs: string): Promise<void> {
  try {
    await pool.syncfs(rootfs);
  } catch (error) {
    if (!hasErrno(error, 'EIO')) throw error;
    throw new ZfsUnavailable(`cannot write out the files of dataset ${dataset}: I/O error`, {
      subject: dataset,
      cause: error,
      remedy: 'see zpool status: bring the devices back, then run zpool clear',
    });
  }
}
