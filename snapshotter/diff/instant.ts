import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';
import { Busy } from '../../src/zfs/errors.ts';
import { syncFiles } from '../dataset.ts';
import type { Pool } from '../pool.ts';
import { ROOTFS } from '../snapshot.ts';

/** Pauses after each attempt to destroy a clone that is busy, in milliseconds. */
const RETRY_MS = [20, 50, 100, 200, 500, 1000];

/** How a snapshot that serves one diff is named; what is left of one after a crash is known by it. */
const PREFIX = 'stasis-diff-';
const PATTERN = new RegExp(`@${PREFIX}[0-9a-f-]{36}$`);

export function isPassing(snapshot: string): boolean {
  return PATTERN.test(snapshot);
}

/** The files of a snapshot as they were at one instant, whatever is written meanwhile. */
export interface Instant {
  /** The ZFS snapshot. */
  readonly snapshot: string;
  /** Where its files are, once they can be read; the snapshot itself is there at once. */
  readonly rootfs: Promise<string>;
  /** Says that the files alone are needed from now on. */
  release(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Takes a snapshot of a dataset's files and makes it readable, through a clone: zfs-fuse has no other way. Both go with
 * `close`. A snapshot that was released is destroyed already, deferred, so that it goes with its clone: a command that the end need not
 * wait for. Clones that are left are destroyed at the next start, as all in `reading` are.
 * @param rootfs path of its files
 */
export async function takeInstant(pool: Pool, dataset: string, rootfs: string): Promise<Instant> {
  const { zfs, mounter, layout } = pool;
  const name = `${PREFIX}${randomUUID()}`;
  const snapshot = `${dataset}@${name}`;
  const clone = `${layout.root}/reading/${name}`;
  let released = false;
  const release = async (): Promise<void> => {
    if (released) return;
    await zfs.destroyIdempotent(snapshot, { defer: true });
    released = true;
  };
  const readable = async (): Promise<string> => {
    await zfs.clone(snapshot, clone, { properties: mounter.birthProperties(clone) });
    mounter.made(clone);
    return `${await mounter.mount(clone)}/${ROOTFS}`;
  };
  await syncFiles(pool, dataset, rootfs); // what was written through mappings is in the page cache alone
  await zfs.snapshot([snapshot]).catch(async (error: unknown) => {
    await release().catch((left: unknown) => {
      pool.log.warn('the snapshot of a failed diff is left', { snapshot, error: messageOf(left) });
    });
    throw error;
  });
  const files = readable();
  files.catch(() => undefined); // whoever reads them is told
  const close = async (): Promise<void> => {
    await files.catch(() => undefined);
    await destroyPatiently(pool, clone);
    await release();
  };
  return { snapshot, rootfs: files, release, close };
}

async function destroyPatiently(pool: Pool, clone: string): Promise<void> {
  for (const wait of [...RETRY_MS, undefined]) {
    try {
      await pool.mounter.unmount(clone);
      await pool.zfs.destroyIdempotent(clone);
      pool.mounter.forget(clone);
      return;
    } catch (error) {
      if (!(error instanceof Busy) || wait === undefined) throw error;
      await sleep(wait);
    }
  }
}
