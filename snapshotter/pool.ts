import type { Logger } from '../src/log.ts';
import { wallTime, type WallTime } from '../src/sys/clock.ts';
import type { Mounter } from '../src/zfs/mounter.ts';
import type { Zfs } from '../src/zfs/zfs.ts';
import type { Node, SnapshotIndex } from './index.ts';
import type { Layout } from './layout.ts';
import type { KeyedLocks } from './locks.ts';
import type { Labels } from './snapshot.ts';

/** What every operation of the snapshotter works with: the pool, its index, and who may touch what. */
export interface Pool {
  readonly zfs: Zfs;
  readonly mounter: Mounter;
  readonly layout: Layout;
  readonly index: SnapshotIndex;
  /** By owner and name; see `lockName`. */
  readonly locks: KeyedLocks;
  /** UUIDs of the containerds that are served: what carries another is never destroyed. */
  readonly owners: Set<string>;
  /** Datasets that a command is about to make: names are taken before they exist. */
  readonly reserved: Set<string>;
  /** Datasets of which nobody knows what became of them, since a command gave no answer; see unsettled.ts. */
  readonly unsettled: Set<string>;
  /** Older generations that a rewind may still put their name back on: a sweep must leave them where they are. */
  readonly rewinding: Set<Node>;
  /** Nodes that are out of use in the index alone, because the pool was too full to write it down. */
  readonly unmarked: Set<Node>;
  readonly log: Logger;
  readonly now: () => WallTime;
  /** Told where the files of a snapshot will be, before the command that makes it is started. */
  readonly placing: (snapshot: { name: string; labels: Labels }, rootfs: string) => void;
  /** Whether mounts of a folder can show its files under other ids. */
  readonly mapsIds: (path: string) => Promise<boolean>;
  /** Writes what the page cache holds of a mounted dataset to it. */
  readonly syncfs: (path: string) => Promise<void>;
}

export const realTime: () => WallTime = wallTime;

export function lockName(owner: string, name: string): string {
  return `${owner}\0${name}`;
}

/** Runs `work` with a dataset name that nothing else can take meanwhile. */
export async function withReserved<T>(
  pool: Pool,
  place: (taken: (dataset: string) => boolean) => string,
  work: (dataset: string) => Promise<T>,
  also: ReadonlySet<string> = new Set(),
): Promise<T> {
  const dataset = place((name) => pool.index.has(name) || pool.reserved.has(name) || also.has(name));
  pool.reserved.add(dataset);
  try {
    return await work(dataset);
  } finally {
    pool.reserved.delete(dataset);
  }
}
