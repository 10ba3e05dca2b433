import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { exec, type Exec } from '../../../../src/sys/command.ts';
import { Busy } from '../../../../src/zfs/errors.ts';
import { ZfsMounter } from '../../../../src/zfs/mounter.ts';
import { openZfs, type Zfs } from '../../../../src/zfs/zfs.ts';
import { slowness } from '../../support/slowness.ts';
import { SnapshotStore, type StoreOptions } from '../../../../snapshotter/store.ts';

/** Why these tests cannot run here; false where they can. */
export const skip =
  process.env['STASIS_POOL'] === undefined ? 'STASIS_POOL names no pool: see scripts/dev env' : false;

export interface RealPool {
  readonly zfs: Zfs;
  readonly root: string;
  readonly folder: string;
  readonly mounter: ZfsMounter;
  /** Arguments of each command, oldest first. */
  readonly commands: string[][];
  open(options?: Partial<StoreOptions>): Promise<SnapshotStore>;
  /** Destroys all that was made. */
  close(): Promise<void>;
}

let serial = 0;

/** A root dataset of this test's own in the stack's pool. */
export async function realPool(): Promise<RealPool> {
  const root = `${process.env['STASIS_POOL'] ?? ''}/test-${process.pid}-${serial++}`;
  return openPool(root, await mkdtemp(join(tmpdir(), 'stasis-pool-')));
}

export interface OwnPool extends RealPool {
  /** Exports the pool and imports it under another name, as a host does that has one of this name already. */
  reimport(): Promise<OwnPool>;
}

/** A pool of this test's own, on a device that can be as bad as it likes. @param device a sparse file, made already */
export async function poolOn(device: string, options: { timeoutMs?: number } = {}): Promise<OwnPool> {
  const name = `stasis-test-${process.pid}-${serial++}`;
  const folder = await mkdtemp(join(tmpdir(), 'stasis-pool-'));
  await zpool('create', '-f', '-m', 'none', name, device);
  return ownPool(name, folder, device, options.timeoutMs);
}

async function ownPool(name: string, folder: string, device: string, timeoutMs?: number): Promise<OwnPool> {
  const pool = await openPool(`${name}/stasis`, folder, timeoutMs);
  return {
    ...pool,
    reimport: async () => {
      await pool.mounter.unmount(pool.root);
      await zpool('export', name);
      const other = `stasis-test-${process.pid}-${serial++}`;
      await zpool('import', '-d', dirname(device), name, other);
      return ownPool(other, folder, device, timeoutMs);
    },
    close: async () => {
      await pool.close();
      await zpool('destroy', '-f', name);
    },
  };
}

/** zfs-fuse calls a dataset busy for a moment after its unmount. */
async function destroyWhenFree(zfs: Zfs, root: string): Promise<void> {
  const deadline = performance.now() + 10_000 * slowness;
  for (;;) {
    try {
      return await zfs.destroyIdempotent(root, { recursive: true });
    } catch (error) {
      if (!(error instanceof Busy) || performance.now() > deadline) throw error;
    }
    await sleep(50);
  }
}

async function zpool(...args: string[]): Promise<void> {
  const { exitCode, stderr } = await exec('zpool', args);
  if (exitCode !== 0) throw new Error(`zpool ${args.join(' ')}: ${stderr}`);
}

async function openPool(root: string, folder: string, timeoutMs?: number): Promise<RealPool> {
  const commands: string[][] = [];
  const recording: Exec = (file, args, options = {}) => {
    commands.push([...args]);
    const limit = options.timeoutMs ?? timeoutMs ?? 120_000;
    return exec(file, args, { ...options, timeoutMs: limit * slowness });
  };
  // A deadline of its own is one of processes.
  const zfs = await openZfs(recording, undefined, { direct: timeoutMs === undefined });
  const mounter = new ZfsMounter(zfs, root, `${folder}/mnt`, (timeoutMs ?? 120_000) * slowness);
  return {
    zfs,
    root,
    folder,
    mounter,
    commands,
    open: async (options = {}) => {
      const store = new SnapshotStore({ zfs, mounter, root, owner: 'test', trashGrace: 0, ...options });
      await store.load();
      return store;
    },
    close: async () => {
      await mounter.unmount(root);
      await destroyWhenFree(zfs, root);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
