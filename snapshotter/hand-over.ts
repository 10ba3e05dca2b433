// What nothing keeps but clones of checkpoints that are gone: one of these takes its place.
import { deferProperty } from '../src/checkpoint/entry.ts';
import { datasetOf, snapshotOf } from '../src/zfs/names.ts';
import type { CallOptions, Row } from '../src/zfs/zfs.ts';
import { isLive, type Node } from './index.ts';
import { lockName, type Pool } from './pool.ts';
import { isExtraction } from './snapshot.ts';
import { changing, isUncertain } from './unsettled.ts';

/** The transaction in which a snapshot was made: it orders the snapshots of a file system, as the time of day does not. */
const txgProperty = 'createtxg';

/**
 * Whether a dataset out of use, a removed container's or one of before a rewind, can be given up though clones stand on it:
 * every checkpoint that was on it is removed, so all its snapshots are retired, and its memory dataset has none.
 * By the index alone.
 */
export function isReplaceable(pool: Pool, node: Node): boolean {
  const { index } = pool;
  if (isLive(node) || node.received || node.inTrash || !isContainer(pool, node)) return false;
  const [, ...below] = index.tree(node.dataset);
  if (below.some((child) => child.snapshots.size > 0)) return false;
  const clones = index.clonesOf(node);
  return (
    clones.length > 0 &&
    clones.every((clone) => isContainer(pool, clone)) &&
    [...node.snapshots.values()].every(({ retired }) => retired)
  );
}

/**
 * Has the clone of such a dataset's last snapshot take its snapshots over, by one `zfs promote`. What runs on the clone does
 * not notice. Afterwards nothing stands on the dataset, and a sweep destroys it; the snapshots go with it, or with the
 * last of the other clones.
 *
 * The pool is asked first, and all is left as it is where it has anything that the index does not know: a snapshot that
 * somebody made by hand is never moved or destroyed.
 * @returns whether it was done
 */
export async function handOver(pool: Pool, node: Node, call: CallOptions = {}): Promise<boolean> {
  const { index, zfs } = pool;
  const clones = index.clonesOf(node);
  const exclusive = [node, ...clones].flatMap(({ snapshot }) =>
    snapshot === undefined ? [] : [lockName(snapshot.owner, snapshot.name)],
  );
  // What is being compared or started is left for the next sweep: who waits for a name keeps others from it.
  if (!pool.locks.areFree(exclusive)) return false;
  return changing(
    pool,
    { exclusive },
    async () => {
      if (index.get(node.dataset) !== node || !isReplaceable(pool, node)) return false;
      const names = await retiredInOrder(pool, node, call);
      const last = names?.at(-1);
      if (names === undefined || last === undefined) return false;
      const heirs = index.clonesOfSnapshot(`${node.dataset}@${last}`).filter((clone) => !clone.inTrash);
      const heir = heirs.find(isLive) ?? heirs[0];
      if (heir === undefined || !clones.includes(heir)) return false;
      if (await haveCommonName(pool, heir, names, call)) return false;
      try {
        await zfs.promote(heir.dataset, call);
      } catch (error) {
        // Their origins have changed then too.
        if (isUncertain(error)) for (const { dataset } of [node, ...clones]) pool.unsettled.add(dataset);
        throw error;
      }
      index.promote(heir, names);
      pool.log.info('a dataset out of use is handed over', { dataset: node.dataset, to: heir.dataset });
      return true;
    },
    call,
  );
}

/**
 * Names that a new snapshot of a container's disk must not have: those of its own snapshots, and of what it came from, whose
 * snapshots it may have to take over one day. Not those that somebody made by hand: a checkpoint of such a name is refused.
 */
export function snapshotNames({ index, layout }: Pool, dataset: string): ReadonlySet<string> {
  const names = new Set<string>();
  for (let node = index.get(dataset); node !== undefined;) {
    for (const [name, { checkpoint, retired }] of node.snapshots)
      if (retired || checkpoint !== undefined) names.add(name);
    const above = node.origin === undefined ? undefined : datasetOf(node.origin);
    node = above === undefined || layout.classOf(above) === 'layer' ? undefined : index.get(above);
  }
  return names;
}

function isContainer({ owners, layout }: Pool, { dataset, snapshot }: Node): boolean {
  return (
    snapshot?.kind === 'active' &&
    owners.has(snapshot.owner) &&
    !isExtraction(snapshot.name, snapshot.labels) &&
    layout.classOf(dataset) !== 'layer'
  );
}

/** Names of a dataset's snapshots, the oldest first; undefined where the pool has other ones than the index, or any that was not destroyed. */
async function retiredInOrder({ zfs }: Pool, node: Node, call: CallOptions): Promise<string[] | undefined> {
  const types = ['filesystem', 'snapshot'] as const;
  const properties = [deferProperty, txgProperty];
  const rows = await zfs.list({ root: node.dataset, types, properties }, call);
  const value = (row: Row, property: string): string | undefined => row.properties.get(property)?.value;
  const snapshots = rows.filter(({ type }) => type === 'snapshot');
  const known = new Set([
    node.dataset,
    `${node.dataset}/memory`, // made without the index
    ...[...node.snapshots.keys()].map((name) => `${node.dataset}@${name}`),
  ]);
  if (!rows.every(({ name }) => known.has(name))) return undefined;
  if (!snapshots.every((row) => value(row, deferProperty) === 'on' && datasetOf(row.name) === node.dataset))
    return undefined;
  if (!snapshots.every((row) => /^\d+$/.test(value(row, txgProperty) ?? ''))) return undefined;
  return snapshots
    .toSorted((a, b) => Number(value(a, txgProperty)) - Number(value(b, txgProperty)))
    .map(({ name }) => snapshotOf(name));
}

/** ZFS would refuse. What this stasisd makes has a name of its own (`snapshotNames`); older ones may not. */
async function haveCommonName(
  { zfs }: Pool,
  heir: Node,
  names: readonly string[],
  call: CallOptions,
): Promise<boolean> {
  const rows = await zfs.list({ root: heir.dataset, depth: 1, types: ['snapshot'], properties: [] }, call);
  const present = new Set(rows.map(({ name }) => name));
  return names.some((name) => present.has(`${heir.dataset}@${name}`));
}
