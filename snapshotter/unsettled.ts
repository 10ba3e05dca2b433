import { Cancelled, DeadlineExceeded, Internal, ResourceExhausted } from '../src/errors.ts';
import { ZfsUnavailable } from '../src/zfs/errors.ts';
import { datasetOf } from '../src/zfs/names.ts';
import type { CallOptions, Row, Zfs } from '../src/zfs/zfs.ts';
import type { Node } from './index.ts';
import { interpret, readPool } from './load.ts';
import type { LockRequest } from './locks.ts';
import { lockName, type Pool } from './pool.ts';
import { decodeText, own, property } from './properties.ts';

/** On the root: the time of the last `settle`. Only the writing of it matters. */
const BARRIER = 'stasis:settled';

/**
 * The same ZFS, which notes each dataset that a command may or may not have changed. A pool whose devices fail takes
 * commands and does not answer; killed then, they still have their effect when the devices are back.
 */
export function noting(zfs: Zfs, unsettled: Set<string>): Zfs {
  const note = async <T>(names: readonly string[], running: Promise<T>): Promise<T> => {
    try {
      return await running;
    } catch (error) {
      if (isUncertain(error)) for (const name of names) unsettled.add(datasetOf(name));
      throw error;
    }
  };
  return {
    kind: zfs.kind,
    version: zfs.version,
    create: (name, ...rest) => note([name], zfs.create(name, ...rest)),
    clone: (snapshot, target, ...rest) => note([target], zfs.clone(snapshot, target, ...rest)),
    snapshot: (names, ...rest) => note(names, zfs.snapshot(names, ...rest)),
    destroy: (name, ...rest) => note([name], zfs.destroy(name, ...rest)),
    destroyIdempotent: (name, ...rest) => note([name], zfs.destroyIdempotent(name, ...rest)),
    promote: (clone, ...rest) => note([clone], zfs.promote(clone, ...rest)),
    rename: (from, to, ...rest) => note([from, to], zfs.rename(from, to, ...rest)),
    set: (name, ...rest) => note([name], zfs.set(name, ...rest)),
    inherit: (name, ...rest) => note([name], zfs.inherit(name, ...rest)),
    list: (...all) => zfs.list(...all),
    changes: (...all) => zfs.changes(...all),
    mount: (...all) => zfs.mount(...all),
    poolStatus: (...all) => zfs.poolStatus(...all),
    pools: (...all) => zfs.pools(...all),
  };
}

/** Whether a command that failed so may have had its effect, or still have it. */
export function isUncertain(error: unknown): boolean {
  return [DeadlineExceeded, Cancelled, Internal, ZfsUnavailable].some((kind) => error instanceof kind);
}

/** Runs `work` under the locks, on an index that agrees with the pool. Whatever changes the pool goes through here. */
export async function changing<T>(
  pool: Pool,
  locks: LockRequest,
  work: () => Promise<T>,
  call?: CallOptions,
): Promise<T> {
  await settle(pool, call);
  return pool.locks.run(locks, work);
}

/**
 * Finds out what became of the commands that gave no answer: reads their datasets again, takes what is so into the
 * index, and destroys what was made for a caller who was told that it failed. Does nothing where there are none.
 * @throws what zfs throws, where the pool still does not answer; to be tried again then
 */
export async function settle(pool: Pool, call?: CallOptions): Promise<void> {
  if (pool.unsettled.size === 0) return;
  const { zfs, layout, log } = pool;
  // A change that waits for the devices is not to be seen yet, though a listing answers: but this one comes after it.
  try {
    await zfs.set(layout.root, { [BARRIER]: String(pool.now().seconds) }, call);
  } catch (error) {
    if (!(error instanceof ResourceExhausted)) throw error; // a full pool answers
  }
  pool.unsettled.delete(layout.root);
  for (const dataset of [...pool.unsettled]) {
    const owner = pool.index.get(dataset)?.snapshot;
    const exclusive = owner === undefined ? [] : [lockName(owner.owner, owner.name)];
    await pool.locks.run({ exclusive }, async () => {
      if (!pool.unsettled.has(dataset) || pool.reserved.has(dataset)) return;
      await settleDataset(pool, dataset);
      pool.unsettled.delete(dataset);
      log.info('a command that gave no answer is settled', { dataset });
    });
  }
}

/** Takes a dataset into the index as the pool has it now, with the memory below it; whoever calls holds its name. */
export async function settleDataset(pool: Pool, dataset: string): Promise<void> {
  const { zfs, index, layout, mounter } = pool;
  mounter.forget(dataset);
  const rows = await readPool(zfs, dataset);
  const known = new Map(index.tree(dataset).map((node) => [node.dataset, node]));
  if (known.size === 0 && isUnwanted(pool, dataset, rows)) {
    await mounter.unmount(dataset);
    await zfs.destroyIdempotent(dataset, { recursive: true });
    return;
  }
  const found = await interpret(pool, dataset, rows);
  index.delete(dataset);
  if (dataset.startsWith(`${layout.root}/reading/`)) return;
  const origins = [...known.values()].map(({ origin }) => origin);
  for (const node of found) index.add(refreshed(known.get(node.dataset), node));
  for (const origin of origins) index.dropRetired(origin);
}

/** What a Prepare made whose caller was told that it failed, or a clone that served one reader. */
function isUnwanted(pool: Pool, dataset: string, rows: readonly Row[]): boolean {
  const made = rows.find(({ name }) => name === dataset);
  if (made === undefined) return false;
  if (dataset.startsWith(`${pool.layout.root}/reading/`)) return true;
  const kind = pool.layout.classOf(dataset);
  const owner = own(made.properties, property.owner);
  // Somebody else's may have been in the place where ours was to be.
  return (
    (kind === 'layer' || kind === 'container') && owner !== undefined && pool.owners.has(decodeText(owner))
  );
}

/** The same node with what the pool says now: others hold on to it. */
function refreshed(known: Node | undefined, now: Node): Node {
  if (known === undefined) return now;
  known.snapshots.clear();
  for (const [name, about] of now.snapshots) known.snapshots.set(name, about);
  const received = known.received && now.received; // where the pool was moved, what was received is in use
  return Object.assign(known, { ...now, received, lost: known.lost, snapshots: known.snapshots });
}
