import { readdir, stat } from 'node:fs/promises';
import { checkpointMessage } from '../api/convert.ts';
import type { CheckpointEntry } from '../checkpoint/entry.ts';
import type { Host } from '../checkpoint/host.ts';
import { allNamespaces, missingContainer, missingNamespace } from '../checkpoint/missing.ts';
import { validateContainerId, validateNamespace } from '../checkpoint/names.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import type {
  ContainerSummary,
  Disk,
  Filling,
  ImageFile,
  InspectRequest,
  InspectResponse,
  ListRequest,
  ListResponse,
} from '../proto/gen/stasis/stasis.ts';
import { whySilent } from '../shims/list.ts';
import { CHECKPOINT_LABEL, type Snapshot } from '../../snapshotter/snapshot.ts';

const statusNames: Readonly<Record<number, string>> = {
  [Status.CREATED]: 'created',
  [Status.RUNNING]: 'running',
  [Status.STOPPED]: 'stopped',
  [Status.PAUSED]: 'paused',
  [Status.PAUSING]: 'pausing',
};

const UNKNOWN = 'unknown';

/** Containers with their disks and checkpoints: those that containerd knows, and those that only the pool knows. */
export async function list(host: Host, request: ListRequest): Promise<ListResponse> {
  if (request.container !== '') validateContainerId(request.container);
  if (!request.allNamespaces) validateNamespace(request.namespace);
  const namespaces = request.allNamespaces ? await allNamespaces(host) : [request.namespace];
  const rows = await readRows(host);
  const summaries = await Promise.all(
    namespaces.map((namespace) => summarise(host, namespace, request.container, rows)),
  );
  const containers = summaries.flat();
  if (containers.length === 0 && !request.allNamespaces) {
    if (request.container !== '') throw await missingContainer(host, request.namespace, request.container);
    const missing = await missingNamespace(host, request.namespace);
    if (missing !== undefined) throw missing;
  }
  return { containers };
}

/** One container, or one of its checkpoints with its record and image files. */
export async function inspect(host: Host, request: InspectRequest): Promise<InspectResponse> {
  const { containers } = await list(host, { ...request, allNamespaces: false });
  const container = containers[0];
  if (container === undefined) throw await missingContainer(host, request.namespace, request.container);
  if (request.checkpoint === '') {
    const { containers: client } = host.containerd.namespace(request.namespace);
    const record = container.exists ? (await client.get({ id: request.container })).container : undefined;
    return {
      container,
      checkpoint: undefined,
      specJson: record?.spec === undefined ? '' : Buffer.from(record.spec.value).toString('utf8'),
      labels: record?.labels ?? {},
      datasetMemory: '',
      files: [],
    };
  }
  const unstored = container.checkpoints.find(
    ({ name, storing, storeError }) => name === request.checkpoint && (storing || storeError !== ''),
  );
  if (unstored !== undefined && !host.catalog.has(request.namespace, request.container, request.checkpoint))
    return { container, checkpoint: unstored, specJson: '', labels: {}, datasetMemory: '', files: [] };
  const entry = host.catalog.resolve(request.namespace, request.container, request.checkpoint);
  const message = container.checkpoints.find((other) => other.id === entry.id);
  const response: InspectResponse = {
    container,
    checkpoint: message ?? checkpointMessage(entry),
    specJson: '',
    labels: {},
    datasetMemory: entry.memorySnapshot ?? '',
    files: [],
  };
  if (entry.memorySnapshot === undefined) return response;
  return host.catalog.reading(entry, async () => {
    const memory = await host.memory.open(entry);
    try {
      const { container: record } = memory.record;
      return {
        ...response,
        specJson: record.spec === undefined ? '' : Buffer.from(record.spec.value).toString('utf8'),
        labels: record.labels,
        files: entry.memory === 'image' ? await imageFiles(memory.imageDir) : [],
      };
    } finally {
      host.later('close a memory image', memory.close());
    }
  });
}

async function imageFiles(folder: string): Promise<ImageFile[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
  return Promise.all(
    names.sort().map(async (name) => ({ name, size: BigInt((await stat(`${folder}/${name}`)).size) })),
  );
}

async function summarise(
  host: Host,
  namespace: string,
  only: string,
  rows: ReadonlyMap<string, Row>,
): Promise<ContainerSummary[]> {
  const client = host.containerd.namespace(namespace);
  const [records, processes] = await Promise.all([
    client.containers.list({ filters: [] }),
    client.tasks.list({ filter: '' }),
  ]);
  const known = new Map(records.containers.map((record) => [record.id, record]));
  const tasks = new Map(processes.tasks.map((task) => [task.id, task]));
  const names = new Set(known.keys());
  for (const entry of host.catalog.all()) if (entry.namespace === namespace) names.add(entry.container);
  for (const { entry } of host.storing.all()) if (entry.namespace === namespace) names.add(entry.container);
  const chosen = [...names].filter((name) => only === '' || name === only).sort();
  return Promise.all(
    chosen.map(async (name) => {
      const [record, task] = [known.get(name), tasks.get(name)];
      // One that does not answer is not in containerd's list, from 2.2 on.
      const mayBeSilent = task === undefined ? record !== undefined : task.status === Status.UNKNOWN;
      const silent = mayBeSilent ? await whySilent(host.config.daemon.run_dir, namespace, name) : undefined;
      return summary(host, { namespace, name, record, task, silent, rows });
    }),
  );
}

interface Known {
  readonly namespace: string;
  readonly name: string;
  readonly record: Container | undefined;
  readonly task: Process | undefined;
  /** Why its shim does not answer. */
  readonly silent: string | undefined;
  readonly rows: ReadonlyMap<string, Row>;
}

function summary(host: Host, { namespace, name, record, task, silent, rows }: Known): ContainerSummary {
  const entries = host.catalog.of(namespace, name);
  const unstored = host.storing.find(namespace, name);
  const disks = disksOf(host, namespace, record?.snapshotKey ?? name, entries, rows);
  const origins = new Map(disks.map((disk) => [disk.dataset, disk.originCheckpointId]));
  return {
    namespace,
    name,
    exists: record !== undefined,
    status:
      task === undefined ? (silent === undefined ? '' : UNKNOWN) : (statusNames[task.status] ?? UNKNOWN),
    pid: task?.pid ?? 0,
    image: record?.image ?? entries.at(-1)?.image ?? '',
    snapshotter: record?.snapshotter ?? '',
    filling: fillingOf(host, namespace, name),
    shimSilent: silent ?? '',
    disks,
    checkpoints: [
      ...entries.map((entry) =>
        checkpointMessage(entry, {
          uniqueBytes:
            (rows.get(entry.snapshot)?.used ?? 0) + (rows.get(entry.memorySnapshot ?? '')?.used ?? 0),
          origin: nameOf(host, origins.get(datasetOf(entry.snapshot)) ?? ''),
        }),
      ),
      ...(unstored === undefined ? [] : [checkpointMessage(unstored.entry, { unstored })]),
    ],
  };
}

/** Memory that is still missing, now or for good. */
function fillingOf(host: Host, namespace: string, name: string): Filling | undefined {
  const fill = host.fills.of(namespace, name);
  if (fill === undefined) return undefined;
  const { note, state } = fill;
  const since = state?.stalledSince ?? 0;
  return {
    checkpoint: `${note.checkpoint.container}@${note.checkpoint.name}`,
    doneBytes: BigInt(Math.min(state?.doneBytes ?? 0, note.totalBytes)),
    totalBytes: BigInt(note.totalBytes),
    stalledSince: since === 0 ? undefined : { seconds: BigInt(since), nanos: 0 },
    lost: state?.kind === 'failed' ? state.why : '',
  };
}

/** The disk a container has, and the former ones that its checkpoints are on. */
function disksOf(
  host: Host,
  namespace: string,
  key: string,
  entries: readonly CheckpointEntry[],
  rows: ReadonlyMap<string, Row>,
): Disk[] {
  const current = host.store.findContainer(namespace, key);
  const datasets = new Set(
    entries.filter((entry) => entry.disk === 'snapshot').map((entry) => datasetOf(entry.snapshot)),
  );
  if (current !== undefined) datasets.add(current.dataset);
  const nodes = new Map(host.store.datasets().map((node) => [node.dataset, node]));
  const foreign = new Set(host.store.strangers.foreign().map((node) => node.dataset));
  const checkpointAt = new Map([...host.catalog.all()].map((entry) => [entry.snapshot, entry.id]));
  return [...datasets].map((dataset) => {
    const info = nodes.get(dataset);
    const created = rows.get(dataset)?.created;
    return {
      dataset,
      namespace,
      container: key,
      current: dataset === current?.dataset,
      originCheckpointId: checkpointAt.get(info?.origin ?? '') ?? '',
      // The dataset's own: what containerd is told is as old as the container, also after a rewind.
      createdAt: created === undefined ? undefined : { seconds: BigInt(created), nanos: 0 },
      usedBytes: BigInt(rows.get(dataset)?.used ?? 0),
      foreign: foreign.has(dataset),
      anew: info?.snapshot !== undefined && !cameFromCheckpoint(info.snapshot),
    };
  });
}

/** Whether it was made by a rewind, a restore or a clone, whatever has become of the checkpoint since. */
function cameFromCheckpoint({ generation, labels }: Snapshot): boolean {
  return generation > 1 || CHECKPOINT_LABEL in labels;
}

function nameOf(host: Host, id: string): string {
  const entry = host.catalog.byId(id);
  return entry === undefined ? '' : `${entry.container}@${entry.name}`;
}

function datasetOf(snapshot: string): string {
  return snapshot.slice(0, snapshot.indexOf('@'));
}

interface Row {
  /** Bytes that it alone holds. */
  readonly used: number;
  /** Unix seconds. */
  readonly created: number;
}

/** All datasets and snapshots by name. One zfs process. */
async function readRows(host: Host): Promise<Map<string, Row>> {
  const rows = await host.zfs.list({
    root: host.root,
    types: ['filesystem', 'snapshot'],
    properties: ['used', 'creation'],
  });
  return new Map(
    rows.map(({ name, properties }) => {
      const number = (property: string): number => Number(properties.get(property)?.value ?? 0);
      return [name, { used: number('used'), created: number('creation') }];
    }),
  );
}
