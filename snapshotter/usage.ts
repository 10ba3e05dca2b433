import type { BigIntStatsFs } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { messageOf } from '../src/errors.ts';
import type { CallOptions } from '../src/zfs/zfs.ts';
import { missing, rootfsOf } from './dataset.ts';
import type { Node } from './index.ts';
import { lockName, type Pool } from './pool.ts';
import { property } from './properties.ts';

/**
 * Bytes and inodes of a snapshot beyond its parent's: what ZFS says of either, without a look at the files.
 * @throws NotFound
 */
export async function usage(
  pool: Pool,
  owner: string,
  name: string,
): Promise<{ size: bigint; inodes: bigint }> {
  const { index, locks } = pool;
  await countLayer(pool, owner, name);
  await countLayer(pool, owner, index.current(owner, name)?.snapshot?.parent ?? '');
  return locks.run({ shared: [lockName(owner, name)] }, async () => {
    const node = index.current(owner, name);
    if (node?.snapshot === undefined) throw missing(name);
    const { kind, parent } = node.snapshot;
    if (kind !== 'committed') await measure(pool, node);
    const below = parent === '' ? undefined : index.current(owner, parent);
    return {
      size: beyond(node.referenced, below?.referenced),
      inodes: beyond(node.inodes, below?.inodes),
    };
  });
}

/** Bytes and inodes that a mounted dataset refers to, its parent's included; exact once a transaction ended. */
export async function measure(pool: Pool, node: Node): Promise<void> {
  const status = await statusOf(pool, node.dataset);
  node.referenced = (status.blocks - status.bfree) * status.bsize;
  node.inodes = status.files - status.ffree;
}

async function statusOf(pool: Pool, dataset: string): Promise<BigIntStatsFs> {
  const rootfs = await rootfsOf(pool, dataset);
  return pool.mounter.answer(dataset, () => statfs(rootfs, { bigint: true }));
}

/**
 * Counts the inodes of a layer where neither this process nor the pool knows them: only a mount tells. Exclusive, since
 * it unmounts what others may be reading.
 */
async function countLayer(pool: Pool, owner: string, name: string): Promise<void> {
  const unknown = (): Node | undefined => {
    const node = pool.index.current(owner, name);
    return node?.snapshot?.kind === 'committed' && node.inodes === undefined ? node : undefined;
  };
  if (unknown() === undefined) return;
  await pool.locks.run({ exclusive: [lockName(owner, name)] }, async () => {
    const node = unknown();
    if (node === undefined) return;
    const status = await statusOf(pool, node.dataset);
    node.inodes = status.files - status.ffree;
    await pool.mounter.unmount(node.dataset).catch((error: unknown) => {
      pool.log.info('a layer stays mounted', { dataset: node.dataset, error: messageOf(error) });
    });
  });
}

/**
 * Writes what was counted of layers to the pool, where the next start finds it. Part of a sweep, since a Commit is one
 * command, and the number is known only after it. What cannot be written is tried again by the next.
 */
export async function recordInodes(pool: Pool, call: CallOptions): Promise<void> {
  for (const node of [...pool.index.nodes()]) {
    const { snapshot, inodes, inodesStored } = node;
    if (snapshot?.kind !== 'committed' || inodes === undefined || inodesStored || node.state !== 'live')
      continue;
    if (call.signal?.aborted === true) return;
    await pool.locks.run({ shared: [lockName(snapshot.owner, snapshot.name)] }, async () => {
      try {
        await pool.zfs.set(pool.index.layerOf(node), { [property.inodes]: String(inodes) }, call);
        node.inodesStored = true;
      } catch (error) {
        pool.log.debug('the inodes of a layer cannot be recorded', {
          dataset: node.dataset,
          error: messageOf(error),
        });
      }
    });
  }
}

function beyond(own: bigint | undefined, parents: bigint | undefined): bigint {
  const difference = (own ?? 0n) - (parents ?? 0n);
  return difference > 0n ? difference : 0n;
}
