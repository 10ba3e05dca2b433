import { Code, codeOf, FailedPrecondition } from '../errors.ts';
import type { Node } from '../../snapshotter/index.ts';
import { splitName } from '../../snapshotter/snapshot.ts';
import { HasClones } from '../zfs/errors.ts';
import { type CheckpointEntry, contentOf } from './entry.ts';
import { findCheckpoint } from './find.ts';
import { type Host, lockKey } from './host.ts';
import { MemoryStore } from './memory-store.ts';
import { validateContainerId, validateNamespace } from './names.ts';

/** What it takes to remove a checkpoint. */
export type RemovalHost = Pick<Host, 'catalog' | 'memory' | 'store' | 'zfs'>;

export interface Removed {
  readonly name: string;
  /** What it alone held, and has given back, in bytes. */
  readonly freedBytes: number;
  /**
   * Containers whose disks stand on it: the data goes with the last of them. Not where its disk is out of use, and will go; nor those of
   * which nobody knows any more, such as clones that were undone.
   */
  readonly waitsFor: readonly string[];
}

/**
 * Removes checkpoints by name; all names are checked before the first is removed. Where `signal` aborts, those that come after
 * are kept, and not in the answer.
 * @throws NotFound, FailedPrecondition; what `signal` was aborted with where none is removed yet
 */
export async function removeCheckpoints(
  host: Host,
  namespace: string,
  container: string,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<Removed[]> {
  validateNamespace(namespace);
  validateContainerId(container);
  const remove = async (): Promise<Removed[]> => {
    const client = host.containerd.namespace(namespace);
    const entries: CheckpointEntry[] = [];
    for (const name of new Set(names)) entries.push(await findCheckpoint(host, client, container, name));
    for (const entry of entries) assertNotRead(host, entry);
    const removed: Removed[] = [];
    signal?.throwIfAborted();
    for (const entry of entries) {
      if (signal?.aborted === true) break;
      removed.push(await removeOne(host, entry));
    }
    return removed;
  };
  return host.locks.run(lockKey(namespace, container), remove, signal);
}

function assertNotRead(host: Host, entry: CheckpointEntry): void {
  const readers = host.fills.readersOf(entry.id);
  if (readers.length > 0) {
    const [reader = ''] = readers;
    const whose = readers.length === 1 ? `container ${reader}` : `containers ${readers.join(', ')}`;
    throw new FailedPrecondition(
      `checkpoint ${entry.name} of ${entry.container} is being read: the memory of ${whose} is still brought in from it`,
      {
        subject: `${entry.container}@${entry.name}`,
        reason: 'checkpoint-in-use',
        remedy: `try again when it is all there: stasis inspect ${reader} shows how far it is`,
      },
    );
  }
  if (!host.catalog.isBeingRead(entry)) return;
  throw new FailedPrecondition(`checkpoint ${entry.name} of ${entry.container} is being restored`, {
    subject: `${entry.container}@${entry.name}`,
    reason: 'checkpoint-in-use',
    remedy: 'try again when the restore has ended',
  });
}

type Disk = Pick<Node, 'dataset' | 'snapshot' | 'state' | 'inTrash'> & {
  readonly snapshots: Pick<Node['snapshots'], 'size'>;
};

/** The containers whose disks these datasets are, by name: a rewound one has several. Those that only wait to be destroyed are nobody's. */
export function ownersOf(nodes: readonly Disk[], datasets: readonly string[]): string[] {
  const names = datasets.flatMap((dataset) => {
    const node = nodes.find((one) => one.dataset === dataset);
    if (node?.snapshot === undefined) return [dataset];
    return goes(node) ? [] : [splitName(node.snapshot.name).key];
  });
  return [...new Set(names)].sort();
}

/** Whether it goes by itself when its time is over: it is removed, and no checkpoint is on it. */
function goes({ state, inTrash, snapshots }: Disk): boolean {
  return inTrash || (state !== 'live' && state !== 'adopted' && snapshots.size === 0);
}

/** The memory half goes first: from then on what is left counts as removed, and a sweep finishes it. */
export async function removeOne(host: RemovalHost, entry: CheckpointEntry): Promise<Removed> {
  const dataset = entry.snapshot.slice(0, entry.snapshot.indexOf('@'));
  const waitsFor = ownersOf(host.store.datasets(), host.store.clonesOf(entry.snapshot));
  let freedBytes = 0;
  if (entry.memorySnapshot !== undefined) freedBytes += await destroySnapshot(host, entry.memorySnapshot);
  host.catalog.delete(entry);
  await host.memory.forgetImage(entry.id);
  if (entry.memorySnapshot !== undefined) await clearHead(host, entry, entry.memorySnapshot);
  if (entry.snapshot !== entry.memorySnapshot) freedBytes += await destroySnapshot(host, entry.snapshot);
  await host.store.forgetCheckpoint(dataset, entry.snapshot.slice(dataset.length + 1));
  const node = host.store.nodeOf(entry.snapshot);
  const givenUp = node !== undefined && host.store.isReplaceable(node);
  return { name: entry.name, freedBytes, waitsFor: givenUp ? [] : waitsFor };
}

/** The head holds what the last checkpoint holds, for the next one: with that checkpoint, its content is to go. */
async function clearHead(host: RemovalHost, entry: CheckpointEntry, memorySnapshot: string): Promise<void> {
  const content = contentOf(entry);
  // A copy that came from elsewhere has the same id, and a memory of its own.
  const others = host.catalog.of(entry.namespace, entry.container).filter(({ id }) => id !== entry.id);
  if (others.some((other) => contentOf(other) === content)) return;
  const dataset = MemoryStore.ownerOf(memorySnapshot);
  // Where it cannot be reached, nothing is to be freed either: the checkpoint is removed all the same.
  const head = await host.memory.headOf(dataset).catch(() => undefined);
  if (head === content) await host.memory.clear(dataset);
}

/**
 * A snapshot that clones stand on goes with the last of them. It is not renamed out of the way: zfs-fuse would take
 * the mounts of all its clones away for that, under running containers.
 * @returns the bytes that it alone held, as far as they are free now
 */
async function destroySnapshot(host: RemovalHost, snapshot: string): Promise<number> {
  const bytes = await usedBy(host, snapshot);
  try {
    await host.zfs.destroy(snapshot);
    return bytes;
  } catch (error) {
    if (codeOf(error) === Code.NotFound) return 0;
    if (!(error instanceof HasClones)) throw error;
    await host.zfs.destroyIdempotent(snapshot, { defer: true });
    host.catalog.retire(snapshot);
    return 0;
  }
}

/** Asked before it goes: afterwards nothing tells. Where nothing is said of it, it is removed all the same. */
async function usedBy(host: RemovalHost, snapshot: string): Promise<number> {
  const rows = await host.zfs
    .list({ root: snapshot, depth: 0, types: ['snapshot'], properties: ['used'] })
    .catch(() => []);
  return Number(rows.find(({ name }) => name === snapshot)?.properties.get('used')?.value ?? 0);
}
