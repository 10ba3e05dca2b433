import { adoptFailure, timestamp, wallTimestamp } from '../api/convert.ts';
import type { CheckpointEntry } from '../checkpoint/entry.ts';
import type { Host } from '../checkpoint/host.ts';
import type {
  AdoptRequest,
  AdoptResponse,
  Disk,
  CheckpointUsage,
  DiskUsage,
  DiskUsageRequest,
  DiskUsageResponse,
} from '../proto/gen/stasis/stasis.ts';
import { readPool } from '../../snapshotter/load.ts';
import { splitName } from '../../snapshotter/snapshot.ts';
import { datasetOf } from '../zfs/names.ts';
import { isUnreadable, type Node } from '../../snapshotter/index.ts';

/**
 * Takes over datasets that another containerd left, from another host, a lost database, or a `zfs receive`; or destroys those
 * that are named. What came since the last look is seen: the pool is read again.
 */
export async function adopt(host: Host, request: AdoptRequest): Promise<AdoptResponse> {
  return host.locks.run('adopt', async () => {
    const { datasets, dryRun } = request;
    const listing = await readPool(host.zfs, host.root);
    await host.store.strangers.notice(listing);
    host.catalog.notice(listing);
    if (request.drop) {
      const { dropped } = await host.store.strangers.drop(datasets, {
        dryRun,
        checkpointsOf: (dataset) =>
          [...host.catalog.all()]
            .filter(({ snapshot }) => datasetOf(snapshot) === dataset)
            .map(({ name }) => name),
      });
      if (!dryRun) for (const { dataset } of dropped) host.catalog.forgetCopies(dataset);
      return { adopted: [], skipped: [], failed: [], dropped: dropped.map(foreignDisk) };
    }
    const { adopted, skipped, failed } = await host.store.strangers.adopt(datasets, { dryRun });
    return {
      adopted: adopted.map(foreignDisk),
      skipped: skipped.map(({ dataset, why }) => `${dataset}: ${why}`),
      failed: failed.map(({ dataset, error }) => adoptFailure(dataset, error)),
      dropped: [],
    };
  });
}

function foreignDisk(node: Node): Disk {
  const { namespace, key } = splitName(node.snapshot?.name ?? '');
  return {
    dataset: node.dataset,
    namespace,
    container: key,
    current: true,
    originCheckpointId: '',
    createdAt: wallTimestamp(node.snapshot?.created),
    usedBytes: node.referenced,
    foreign: true,
    anew: false,
  };
}

/** What each dataset and checkpoint below the root takes, and what keeps what waits in the trash. */
export async function diskUsage(host: Host, request: DiskUsageRequest): Promise<DiskUsageResponse> {
  const pool = host.root.split('/')[0] ?? host.root;
  const [rows, status] = await Promise.all([
    host.zfs.list({
      root: host.root,
      types: ['filesystem', 'snapshot'],
      properties: ['used', 'usedbydataset', 'referenced'],
    }),
    host.zfs.poolStatus(pool),
  ]);
  const nodes = new Map(host.store.datasets().map((node) => [node.dataset, node]));
  const foreign = new Set(host.store.strangers.foreign().map((node) => node.dataset));
  const checkpoints = new Map(
    [...host.catalog.all()].flatMap((entry) => [
      [entry.snapshot, entry],
      [entry.memorySnapshot ?? '', entry],
    ]),
  );
  const entries: DiskUsage[] = [];
  const sums = new Map<string, CheckpointUsage>();
  for (const row of rows) {
    const bytes = (name: string): bigint => BigInt(row.properties.get(name)?.value ?? '0');
    const common = {
      dataset: row.name,
      referencedBytes: bytes('referenced'),
      waitsFor: [],
      expiresAt: undefined,
      checkpoint: '',
    };
    const split = (unique: bigint) => ({
      uniqueBytes: unique,
      sharedBytes: beyond(common.referencedBytes, unique),
    });
    const entry = checkpoints.get(row.name);
    if (entry !== undefined) {
      if (!request.allNamespaces && entry.namespace !== request.namespace) continue;
      const kind = row.name === entry.memorySnapshot ? 'memory' : 'checkpoint';
      const { container, name: checkpoint } = entry;
      const usage = { ...common, kind, container, checkpoint, ...split(bytes('used')) };
      entries.push(usage);
      sums.set(entry.id, added(sums.get(entry.id), entry, usage));
      continue;
    }
    const node = nodes.get(row.name);
    if (node !== undefined && isUnreadable(node))
      entries.push({ ...common, kind: 'unreadable', container: '', ...split(bytes('usedbydataset')) });
    if (node?.snapshot === undefined) continue;
    const { namespace, key } = splitName(node.snapshot.name);
    const going = node.state !== 'live' && node.state !== 'adopted' && !host.store.isReplaceable(node);
    const needed = going ? dependents(host, node) : [];
    const kind = kindOf(node, foreign.has(row.name), needed);
    const layer = node.snapshot.kind === 'committed'; // any namespace's containers may stand on one
    const container = !layer && ['container', 'kept', 'trash', 'adopted'].includes(kind);
    if (container && !request.allNamespaces && namespace !== request.namespace) continue;
    entries.push({
      ...common,
      kind,
      container: layer ? '' : key,
      ...split(bytes('usedbydataset')),
      waitsFor: needed,
      expiresAt:
        kind === 'trash'
          ? timestamp(BigInt(node.since + host.config.zfs.trash_grace) * 1_000_000_000n)
          : undefined,
    });
  }
  return {
    entries,
    poolFreeBytes: BigInt(status.freeBytes),
    poolSizeBytes: BigInt(status.sizeBytes),
    pool,
    poolHealth: status.health,
    checkpoints: [...sums.values()],
  };
}

/** A dataset that was just written to may be counted as larger than what it refers to. */
function beyond(all: bigint, part: bigint): bigint {
  return all > part ? all - part : 0n;
}

function added(
  sum: CheckpointUsage | undefined,
  { namespace, container, name }: CheckpointEntry,
  usage: DiskUsage,
): CheckpointUsage {
  return {
    namespace,
    container,
    name,
    uniqueBytes: (sum?.uniqueBytes ?? 0n) + usage.uniqueBytes,
    sharedBytes: (sum?.sharedBytes ?? 0n) + usage.sharedBytes,
    referencedBytes: (sum?.referencedBytes ?? 0n) + usage.referencedBytes,
  };
}

function kindOf(node: Node, foreign: boolean, needed: readonly string[]): string {
  if (foreign || node.received) return 'foreign';
  if (node.state === 'adopted') return 'adopted';
  if (node.inTrash || (node.state !== 'live' && needed.length === 0)) return 'trash';
  if (node.state !== 'live') return 'kept';
  return node.snapshot?.kind === 'committed' ? 'layer' : 'container';
}

/** Checkpoints on a dataset, and datasets cloned from it, below the root. */
function dependents(host: Host, node: Node): string[] {
  return [...node.snapshots.keys()].flatMap((name) => {
    const snapshot = `${node.dataset}@${name}`;
    return [snapshot, ...host.store.clonesOf(snapshot)].map((full) => full.slice(host.root.length + 1));
  });
}
