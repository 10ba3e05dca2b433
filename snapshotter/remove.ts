import { setTimeout as sleep } from 'node:timers/promises';
import { FailedPrecondition, messageOf, ResourceExhausted } from '../src/errors.ts';
import { Busy, HasClones } from '../src/zfs/errors.ts';
import { poolOf } from '../src/zfs/names.ts';
import type { CallOptions } from '../src/zfs/zfs.ts';
import type { Node } from './index.ts';
import { isLive } from './index.ts';
import { changing, settle } from './unsettled.ts';
import { lockName, withReserved, type Pool } from './pool.ts';
import { property, stateValue } from './properties.ts';
import { isExtraction, type DatasetState } from './snapshot.ts';
import { missing } from './dataset.ts';
import { correcting, isCorrected } from './gone.ts';
import { handOver, isReplaceable } from './hand-over.ts';
import { recordInodes } from './usage.ts';

/** Waits between tries at a dataset that is busy, in milliseconds: an unmount takes effect a little later. */
const RETRIES_MS = [20, 100, 400];
/** Below this part of the pool free, the trash is emptied without grace. */
const SCARCE = 0.05;

/**
 * Frees a name at once: one `zfs` command. A container's root file system goes to the trash, or stays marked
 * where checkpoints or clones need it; a layer is marked; the rest is destroyed. The slow part is `sweep`.
 * What somebody destroyed by hand is removed thereby.
 * @throws NotFound; FailedPrecondition where snapshots stand on it
 */
export async function remove(pool: Pool, owner: string, name: string, call?: CallOptions): Promise<void> {
  await changing(pool, { exclusive: [lockName(owner, name)] }, () =>
    correcting(
      pool,
      () => pool.index.generations(owner, name),
      async (again) => {
        if (again && pool.index.current(owner, name) === undefined) return;
        await removeCurrent(pool, owner, name, call);
      },
    ),
  );
}

async function removeCurrent(
  pool: Pool,
  owner: string,
  name: string,
  call: CallOptions | undefined,
): Promise<void> {
  const node = pool.index.current(owner, name);
  const snapshot = node?.snapshot;
  if (node === undefined || snapshot === undefined) throw missing(name);
  const children = pool.index.children(owner, name);
  if (children > 0) {
    throw new FailedPrecondition(
      `cannot remove snapshot ${name}: ${children} others have it as their parent`,
      {
        subject: name,
      },
    );
  }
  // Older generations first: a crash between leaves the current one in place, never an older one in its stead.
  for (const older of pool.index.generations(owner, name)) {
    if (older !== node) await mark(pool, older, 'superseded', call);
  }
  if (snapshot.kind === 'committed' || isExtraction(name, snapshot.labels) || pool.index.isNeeded(node)) {
    await mark(pool, node, 'removed', call);
    await release(pool, node);
  } else if (snapshot.kind === 'view') {
    await destroyOrMark(pool, node, call);
  } else {
    await trashOrMark(pool, node, call);
  }
}

/** Takes a dataset out of use in place, in one property: its key is free, and it waits for what needs it. */
export async function mark(
  pool: Pool,
  node: Node,
  state: Exclude<DatasetState, 'live'>,
  call?: CallOptions,
): Promise<void> {
  const since = Number(pool.now().seconds);
  try {
    await pool.zfs.set(node.dataset, { [property.state]: stateValue(state, since) }, call);
  } catch (error) {
    if (!(error instanceof ResourceExhausted)) throw error;
    if (await makeRoom(pool, node, call)) return;
    pool.unmarked.add(node);
  }
  pool.index.change(node, { state, since });
}

/**
 * A full pool has no room for a mark, but takes a destroy: who removes something to make room is not turned away. What
 * cannot go yet is out of use in the index, and written down by the next sweep that can.
 * @returns whether the dataset is gone
 */
async function makeRoom(pool: Pool, node: Node, call: CallOptions | undefined): Promise<boolean> {
  if (pool.index.isNeeded(node)) return false;
  try {
    await destroyNode(pool, node, call);
    return true;
  } catch (error) {
    if (error instanceof Busy || error instanceof HasClones) return false;
    throw error;
  }
}

/** Writes down what was removed while the pool was full. */
async function writeMarks(pool: Pool, call: CallOptions): Promise<void> {
  for (const node of [...pool.unmarked]) {
    if (pool.index.get(node.dataset) === node && node.state !== 'live') {
      try {
        await pool.zfs.set(node.dataset, { [property.state]: stateValue(node.state, node.since) }, call);
      } catch (error) {
        if (!(error instanceof ResourceExhausted)) throw error;
        return;
      }
    }
    pool.unmarked.delete(node);
  }
}

/** Unmounts what is kept out of use; a sweep will try again where it is still open. */
async function release(pool: Pool, node: Node): Promise<void> {
  await pool.mounter.unmount(node.dataset).catch((error: unknown) => {
    pool.log.info('a dataset out of use stays mounted', { dataset: node.dataset, error: messageOf(error) });
  });
}

/**
 * Takes a container's dataset out of use: one command. It moves to the trash; where something has it open, it is
 * marked in its place. zfs-fuse refuses a rename until an unmount has taken effect, which may be a while after: there
 * it is always marked, and the next sweep moves it.
 */
export async function trashOrMark(pool: Pool, node: Node, call?: CallOptions): Promise<void> {
  if (pool.zfs.kind === 'zfs-fuse') {
    await mark(pool, node, 'removed', call);
    await release(pool, node);
    return;
  }
  try {
    await trash(pool, node, Number(pool.now().seconds), call);
  } catch (error) {
    if (!(error instanceof Busy || error instanceof ResourceExhausted)) throw error;
    pool.log.info('a removed dataset cannot be moved: it stays in its place', {
      dataset: node.dataset,
      error: messageOf(error),
    });
    await mark(pool, node, 'removed', call);
  }
}

/** @param since when it was removed, in seconds @throws Busy */
async function trash(pool: Pool, node: Node, since: number, call?: CallOptions): Promise<void> {
  const from = node.dataset;
  await pool.mounter.unmount(from);
  const place = (taken: (dataset: string) => boolean): string => pool.layout.placeInTrash(from, since, taken);
  await withReserved(pool, place, async (to) => {
    await pool.zfs.rename(from, to, call);
    pool.mounter.forget(from);
    pool.index.rename(from, to, { inTrash: true, since });
  });
}

/** Destroys it, or takes it out of use where something has it open. */
export async function destroyOrMark(pool: Pool, node: Node, call?: CallOptions): Promise<void> {
  try {
    await destroyNode(pool, node, call);
  } catch (error) {
    if (!(error instanceof Busy)) throw error;
    await mark(pool, node, 'removed', call);
  }
}

async function destroyNode(pool: Pool, node: Node, call?: CallOptions): Promise<void> {
  await pool.mounter.unmount(node.dataset);
  await pool.zfs.destroyIdempotent(node.dataset, { recursive: node.snapshot?.kind !== 'view' }, call);
  pool.index.delete(node.dataset);
  pool.index.dropRetired(node.origin);
}

/** What one sweep did, and what is still in the way. */
export interface Swept {
  readonly destroyed: readonly string[];
  readonly failed: readonly { readonly dataset: string; readonly why: string }[];
}

/**
 * Destroys what was removed, is due, and has no checkpoints or clones left; then what that made free, and so on. What
 * nothing but clones of removed checkpoints keeps is handed over to one of these first.
 * Never throws for one dataset: it is reported, and tried again by the next sweep.
 */
export async function sweep(pool: Pool, graceSeconds: number, call: CallOptions = {}): Promise<Swept> {
  const destroyed: string[] = [];
  const failed = new Map<string, string>();
  await settle(pool, call);
  await settleOlderGenerations(pool, failed);
  const scarce = await isScarce(pool);
  /** What was looked at and has to stay where it is. */
  const kept = new Set<Node>();
  for (;;) {
    const all = [...pool.index.nodes()].filter(
      (node) => !failed.has(node.dataset) && isDue(pool, node, graceSeconds, scarce),
    );
    const due = all.filter((node) => !pool.index.isNeeded(node));
    if (due.length === 0) {
      const next = all.find((node) => !kept.has(node) && isReplaceable(pool, node));
      if (next === undefined || call.signal?.aborted === true) break;
      kept.add(next);
      await handOver(pool, next, call).catch(async (error: unknown) => {
        if (await isCorrected(pool, error, [next, ...pool.index.clonesOf(next)])) return;
        failed.set(next.dataset, messageOf(error));
        pool.log.warn('a removed dataset cannot be handed over yet', {
          dataset: next.dataset,
          error: messageOf(error),
        });
      });
      continue;
    }
    for (const node of due) {
      if (call.signal?.aborted === true) return { destroyed, failed: report(failed) };
      const dataset = node.dataset;
      try {
        await patiently(() => destroyNode(pool, node, call));
        destroyed.push(dataset);
      } catch (error) {
        if (await isCorrected(pool, error, [node])) continue;
        failed.set(dataset, messageOf(error));
        pool.log.warn('a removed dataset cannot be destroyed yet', { dataset, error: messageOf(error) });
      }
    }
  }
  await tidy(pool, call);
  await writeMarks(pool, call);
  await recordInodes(pool, call);
  if (destroyed.length > 0) pool.log.info('removed datasets destroyed', { count: destroyed.length });
  return { destroyed, failed: report(failed) };
}

/** Moves containers that were marked where they stood to the trash, for an administrator to see; no matter if not. */
async function tidy(pool: Pool, call: CallOptions): Promise<void> {
  for (const node of [...pool.index.nodes()]) {
    const owner = node.snapshot?.owner;
    if (node.state !== 'removed' || node.inTrash || node.received) continue;
    if (owner === undefined || !pool.owners.has(owner)) continue;
    if (pool.layout.classOf(node.dataset) !== 'container' || pool.index.isNeeded(node)) continue;
    if (call.signal?.aborted === true) return;
    await trash(pool, node, node.since, call).catch((error: unknown) => {
      pool.log.debug('a removed dataset is still in use', { dataset: node.dataset, error: messageOf(error) });
    });
  }
}

/** A rewind that was cut short after its clone: the older generation is put aside as its end would have. */
async function settleOlderGenerations(pool: Pool, failed: Map<string, string>): Promise<void> {
  for (const node of [...pool.index.nodes()]) {
    const { snapshot } = node;
    if (snapshot === undefined || !isLive(node) || !pool.owners.has(snapshot.owner)) continue;
    const current = pool.index.current(snapshot.owner, snapshot.name);
    if (current === undefined || current === node) continue;
    await pool.locks.run({ exclusive: [lockName(snapshot.owner, snapshot.name)] }, async () => {
      if (
        pool.rewinding.has(node) ||
        !isLive(node) ||
        pool.index.current(snapshot.owner, snapshot.name) === node
      )
        return;
      try {
        await putAside(pool, node);
      } catch (error) {
        if (await isCorrected(pool, error, [node])) return;
        failed.set(node.dataset, messageOf(error));
      }
    });
  }
}

/** Takes an older generation out of use: kept where checkpoints or clones need it, else to the trash. */
export async function putAside(pool: Pool, node: Node, call?: CallOptions): Promise<void> {
  if (!pool.index.isNeeded(node)) return trashOrMark(pool, node, call);
  await mark(pool, node, 'superseded', call);
  await release(pool, node);
}

/** Runs what destroys a dataset again while that is busy. */
export async function patiently(destroy: () => Promise<void>): Promise<void> {
  for (const wait of [...RETRIES_MS, undefined]) {
    try {
      return await destroy();
    } catch (error) {
      if (error instanceof HasClones || !(error instanceof Busy) || wait === undefined) throw error;
      await sleep(wait);
    }
  }
}

/** Containers keep their grace time; layers, views and what was only ever unpacked need none. */
function isDue(pool: Pool, node: Node, graceSeconds: number, scarce: boolean): boolean {
  const removed = node.inTrash || node.state === 'removed' || node.state === 'superseded';
  if (!removed || node.received) return false;
  if (node.snapshot !== undefined && !pool.owners.has(node.snapshot.owner)) return false;
  if (node.inTrash && pool.layout.classOf(node.dataset) !== 'trash') return false; // goes with its parent
  const container =
    node.snapshot?.kind === 'active' && !isExtraction(node.snapshot.name, node.snapshot.labels);
  return !container || scarce || node.since + graceSeconds <= Number(pool.now().seconds);
}

async function isScarce(pool: Pool): Promise<boolean> {
  const waiting = (node: Node): boolean =>
    node.inTrash || node.state === 'removed' || node.state === 'superseded';
  if (![...pool.index.nodes()].some(waiting)) return false;
  const status = await pool.zfs.poolStatus(poolOf(pool.layout.root));
  return status.freeBytes < status.sizeBytes * SCARCE;
}

function report(failed: ReadonlyMap<string, string>): Swept['failed'] {
  return [...failed].map(([dataset, why]) => ({ dataset, why }));
}
