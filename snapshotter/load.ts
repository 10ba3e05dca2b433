import { deferProperty, properties as checkpointProperties } from '../src/checkpoint/entry.ts';
import { isPassing } from './diff/instant.ts';
import { messageOf, NotFound } from '../src/errors.ts';
import { datasetOf, snapshotOf } from '../src/zfs/names.ts';
import type { Property, Row, Zfs } from '../src/zfs/zfs.ts';
import { isUnreadable, type Node } from './index.ts';
import { settleLost } from './lost.ts';
import type { Pool } from './pool.ts';
import {
  chunkProperties,
  faultOf,
  fromProperties,
  indexed,
  isReceived,
  own,
  parseState,
  property,
  UNREADABLE_REMEDY,
} from './properties.ts';
import { settleMoved } from './received.ts';
import { LAYER } from './snapshot.ts';

/** zfs-fuse needs some 10 ms for each dataset: two minutes for 10,000 of them. */
const LISTING_TIMEOUT_MS = 10 * 60_000;

/** Properties of the datasets that hold the others, for the user to change later; children inherit them. */
export function rootProperties(kind: Zfs['kind']): Record<string, string> {
  return kind === 'openzfs'
    ? {
        mountpoint: 'legacy',
        canmount: 'off',
        compression: 'lz4',
        atime: 'off',
        xattr: 'sa',
        acltype: 'posixacl',
      }
    : { mountpoint: 'none', canmount: 'off', compression: 'on', atime: 'off' };
}

/**
 * All that the pool says of snapshots and checkpoints: one listing, from which the index and the catalog of checkpoints
 * are rebuilt. A root that does not exist yet has nothing.
 */
export async function readPool(zfs: Zfs, root: string): Promise<Row[]> {
  const wanted = new Set([...indexed, ...Object.values(checkpointProperties)]);
  try {
    return await zfs.list(
      { root, types: ['filesystem', 'snapshot'], properties: [...wanted], ownOnly: true },
      { timeoutMs: LISTING_TIMEOUT_MS },
    );
  } catch (error) {
    if (error instanceof NotFound) return [];
    throw error;
  }
}

/**
 * Fills the index from a listing of the root and everything below it, and makes the root and its classes
 * where they do not exist. What cannot be understood is left alone and logged.
 */
export async function loadIndex(pool: Pool, listing: readonly Row[]): Promise<void> {
  const { zfs, layout } = pool;
  if (listing.length === 0) {
    await zfs.create(layout.root, { properties: rootProperties(zfs.kind) });
    pool.index.add(plainNode(layout.root));
  }
  const nodes = await interpret(pool, layout.root, listing);
  await settleMoved(pool, nodes);
  await settleLost(pool, nodes);
  for (const node of nodes) {
    pool.index.add(node);
    const { dataset, fault } = node;
    if (isUnreadable(node))
      pool.log.warn('a dataset describes no snapshot that can be understood', {
        dataset,
        error: fault,
        remedy: UNREADABLE_REMEDY,
      });
  }
  for (const dataset of [layout.layers, layout.containers, layout.trash]) {
    if (!pool.index.has(dataset)) await ensureContainer(pool, dataset);
  }
}

/** The nodes that a listing of `root` describes. Destroys what is left of diffs that were cut off. */
export async function interpret(pool: Pool, root: string, listing: readonly Row[]): Promise<Node[]> {
  for (const { name } of indexedRows(pool, listing).filter((row) => isPassing(row.name))) {
    await pool.zfs.destroyIdempotent(name, { defer: true });
    pool.log.warn('the snapshot of a diff that was cut off is destroyed', { snapshot: name });
  }
  return interpretRows(pool, root, listing);
}

/** The nodes that a listing of `root` describes, but for what diffs are at. Changes nothing. */
export async function interpretRows(pool: Pool, root: string, listing: readonly Row[]): Promise<Node[]> {
  const rows = indexedRows(pool, listing).filter((row) => !isPassing(row.name));
  return nodesOf(pool, rows, await readChunks(pool.zfs, root, rows));
}

/** Clones to read from are no part of the index: they go with what reads them, or at the start. */
function indexedRows({ layout }: Pool, listing: readonly Row[]): Row[] {
  return listing.filter((row) => !row.name.startsWith(`${layout.root}/reading/`));
}

/** Makes a dataset that only holds others. */
export async function ensureContainer(pool: Pool, dataset: string): Promise<void> {
  await pool.zfs.create(dataset, { properties: { canmount: 'off' } });
  pool.index.add(plainNode(dataset));
}

function plainNode(dataset: string): Node {
  return {
    dataset,
    origin: undefined,
    snapshot: undefined,
    state: 'live',
    since: 0,
    snapshots: new Map(),
    referenced: 0n,
    inodes: undefined,
    inodesStored: false,
    labelHead: undefined,
    inTrash: false,
    received: false,
    lost: false,
    fault: undefined,
  };
}

/** Long label sets, by the dataset or snapshot that has them: where there are any, a second listing of these alone. */
async function readChunks(zfs: Zfs, root: string, rows: readonly Row[]): Promise<Map<string, string[]>> {
  const wanted = new Map(
    rows
      .map((row) => [row.name, chunkProperties(own(row.properties, property.labels) ?? '')] as const)
      .filter(([, names]) => names.length > 0),
  );
  const found = new Map<string, string[]>();
  if (wanted.size === 0) return found;
  const properties = [...new Set([...wanted.values()].flat())];
  const types = ['filesystem', 'snapshot'] as const;
  const listing = await zfs.list(
    { root, types, properties, setOnly: true },
    { timeoutMs: LISTING_TIMEOUT_MS },
  );
  for (const row of listing) {
    const names = wanted.get(row.name);
    if (names === undefined) continue;
    found.set(
      row.name,
      names.map((name) => own(row.properties, name) ?? ''),
    );
  }
  return found;
}

function nodesOf(pool: Pool, rows: readonly Row[], chunks: ReadonlyMap<string, string[]>): Node[] {
  const nodes = new Map<string, Node>();
  const describe = (row: Row): Pick<Node, 'snapshot' | 'fault'> => {
    try {
      const snapshot = fromProperties(row.properties, datasetOf(row.name), chunks.get(row.name) ?? []);
      return { snapshot, fault: snapshot === undefined ? faultOf(row.properties) : undefined };
    } catch (error) {
      return { snapshot: undefined, fault: messageOf(error) };
    }
  };
  for (const row of rows) {
    if (row.type !== 'filesystem') continue;
    const state = parseState(own(row.properties, property.state));
    const trashed = pool.layout.trashedAt(row.name);
    nodes.set(row.name, {
      ...plainNode(row.name),
      origin: row.properties.get('origin')?.value,
      ...describe(row),
      state: state.state,
      since: trashed ?? state.since,
      referenced: bytes(row.properties.get('referenced')),
      labelHead: own(row.properties, property.labels),
      inTrash: row.name.startsWith(`${pool.layout.trash}/`),
      received: isReceived(row),
    });
  }
  for (const row of rows) {
    const node = nodes.get(datasetOf(row.name));
    const name = snapshotOf(row.name);
    if (row.type !== 'snapshot' || node === undefined) continue;
    const retired = row.properties.get(deferProperty)?.value === 'on';
    node.snapshots.set(name, {
      checkpoint: retired ? undefined : own(row.properties, property.checkpoint),
      retired,
    });
    if (name !== LAYER) continue;
    const committed = describe(row);
    if (committed.snapshot === undefined) {
      if (committed.fault !== undefined) Object.assign(node, committed);
      continue;
    }
    Object.assign(node, committed);
    node.received = isReceived(row);
    node.labelHead = own(row.properties, property.labels);
    node.referenced = bytes(row.properties.get('referenced'));
    const inodes = own(row.properties, property.inodes);
    node.inodes = inodes !== undefined && /^\d+$/.test(inodes) ? BigInt(inodes) : undefined;
    node.inodesStored = node.inodes !== undefined;
  }
  for (const node of nodes.values()) {
    if (node.snapshot?.kind === 'committed' && !node.snapshots.has(LAYER))
      Object.assign(node, {
        snapshot: undefined,
        fault: `it is a layer by ${property.kind}, and has no snapshot @${LAYER}`,
      });
  }
  return [...nodes.values()];
}

function bytes(found: Property | undefined): bigint {
  return found !== undefined && /^\d+$/.test(found.value) ? BigInt(found.value) : 0n;
}
