// What somebody destroyed by hand while stasisd ran. Nothing tells of it but a command that finds it missing: then the pool is asked
// once, and the index put right. A key that could not be removed for that would stop containerd's collector for all other snapshots.
import { NotFound } from '../src/errors.ts';
import { datasetOf } from '../src/zfs/names.ts';
import type { CallOptions } from '../src/zfs/zfs.ts';
import type { Node } from './index.ts';
import type { Pool } from './pool.ts';
import { CHECKPOINT_LABEL, type Labels } from './snapshot.ts';
import { settleDataset } from './unsettled.ts';

/**
 * Runs `work`; where the pool says that something does not exist, looks once whether these datasets are as the index has them, and
 * runs it again where they were not.
 * @param nodes what `work` relies on; asked after it failed
 * @throws what `work` throws, the second time too
 */
export async function correcting<T>(
  pool: Pool,
  nodes: () => readonly Node[],
  work: (again: boolean) => Promise<T>,
): Promise<T> {
  try {
    return await work(false);
  } catch (error) {
    if (!(await isCorrected(pool, error, nodes()))) throw error;
  }
  return work(true);
}

/** Whether a command failed since datasets are gone that the index had, which it has no more then. */
export async function isCorrected(pool: Pool, error: unknown, nodes: readonly Node[]): Promise<boolean> {
  if (!(error instanceof NotFound) || nodes.length === 0) return false;
  if (!(await answers(pool))) return false;
  let corrected = false;
  for (const node of nodes) if (await lookAgain(pool, node)) corrected = true;
  return corrected;
}

/** What a dataset is made of and in: its parent's, or a checkpoint's, and the folder that its namespace has. */
export function reliedOn(
  { index, layout }: Pool,
  { owner, name, parent, labels }: { owner: string; name: string; parent: string; labels: Labels },
): Node[] {
  const disk = index.checkpoint(labels[CHECKPOINT_LABEL] ?? '');
  const place = layout.place(name, labels, () => false);
  return [
    ...(parent === '' ? [] : index.generations(owner, parent)),
    ...[disk === undefined ? '' : datasetOf(disk), place.slice(0, place.lastIndexOf('/'))].map((dataset) =>
      index.get(dataset),
    ),
  ].filter((node) => node !== undefined);
}

/**
 * Datasets of the index that the pool does not have; nothing is changed. What is being made or destroyed meanwhile may be among
 * them, so who takes them out of the index asks for each once more.
 * @throws what zfs throws: a pool that is exported lacks everything, and says nothing of it
 */
export async function findGone(pool: Pool, call?: CallOptions): Promise<Node[]> {
  const before = [...pool.index.nodes()];
  const rows = await pool.zfs.list({ root: pool.layout.root, types: ['filesystem'], properties: [] }, call);
  const there = new Set(rows.map(({ name }) => name));
  return before.filter((node) => isKnown(pool, node) && !there.has(node.dataset));
}

/** A pool that is exported, or whose root was renamed, has none of the datasets: they are not gone then. */
async function answers({ zfs, layout }: Pool): Promise<boolean> {
  try {
    await zfs.list({ root: layout.root, depth: 0, types: ['filesystem'], properties: [] });
    return true;
  } catch {
    return false; // the caller's own error says what there is to say
  }
}

/** One listing of it. @returns whether it was another than the index had it */
async function lookAgain(pool: Pool, node: Node): Promise<boolean> {
  const { index, zfs, log } = pool;
  const { dataset, snapshot } = node;
  if (!isKnown(pool, node)) return false;
  if (snapshot === undefined) {
    try {
      await zfs.list({ root: dataset, depth: 0, types: ['filesystem'], properties: [] });
      return false;
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
    }
    if (!isKnown(pool, node)) return false;
    index.delete(dataset);
  } else {
    const before = standing(pool, node);
    await settleDataset(pool, dataset);
    if (standing(pool, node) === before) return false;
  }
  log.warn(
    index.has(dataset)
      ? 'a dataset was changed by hand'
      : 'a dataset is gone that was in use: it was destroyed or renamed by hand',
    { dataset, ...(snapshot === undefined ? {} : { snapshot: snapshot.name }) },
  );
  return true;
}

function isKnown({ index }: Pool, node: Node): boolean {
  return index.get(node.dataset) === node;
}

/** What of a node others rely on. */
function standing(pool: Pool, { dataset }: Node): string {
  const nodes = pool.index.tree(dataset);
  return JSON.stringify(
    nodes.map((node) => [
      node.dataset,
      node.snapshot?.kind,
      node.snapshot?.name,
      node.state,
      [...node.snapshots.keys()].toSorted(),
    ]),
  );
}
