import { findContainer, findTask, type NamespaceClient, noSuchContainer } from '../containerd/client.ts';
import { Code, codeOf, NotFound } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import type { InstantResponse } from '../proto/gen/stasis/engine.ts';
import { examineTask } from '../doctor/examine.ts';
import { describeObstacle } from '../doctor/obstacle.ts';
import { syncfs } from '../sys/syncfs.ts';
import { type CheckpointEntry, diskProperties, newCheckpointId } from './entry.ts';
import { takeOfForeignDisk } from './foreign.ts';
import { type Host, lockKey, type Report, snapshotterName } from './host.ts';
import type { SnapshotOrigin } from './record.ts';
import { mappingLabels } from '../../snapshotter/idmap.ts';
import {
  defaultCheckpointName,
  validateCheckpointName,
  validateContainerId,
  validateNamespace,
} from './names.ts';
import { MemoryStore } from './memory-store.ts';
import { takeUnchanged } from './unchanged.ts';
import { findEngine } from './shim-client.ts';
import { Steps } from './steps.ts';
import {
  dump,
  type InstantOptions,
  memoryRequired,
  notRunning,
  notOurRuntime,
  obstructed,
  stageFor,
  storeMemory,
  type TakeRequest,
  type Taking,
} from './taking.ts';
import { endTask, withPausedTask } from './task.ts';

const notDumped: InstantResponse = {
  memory: false,
  memoryError: '',
  wasPaused: false,
  freezeNs: 0n,
  dumpNs: 0n,
  syncNs: 0n,
  snapshotNs: 0n,
  frozenNs: 0n,
  imageBytes: 0n,
  pid: 0,
  exited: false,
  cpuNs: 0n,
};

/**
 * Takes a checkpoint: memory and disk of one instant. A failure leaves the container as it was, and nothing
 * in the pool.
 * @throws NotFound, AlreadyExists, InvalidArgument, FailedPrecondition (not running; memory required and not
 *   to be had), ResourceExhausted (pool full), Unavailable
 */
export async function takeCheckpoint(
  host: Host,
  request: TakeRequest,
  report: Report,
): Promise<CheckpointEntry> {
  validateNamespace(request.namespace);
  validateContainerId(request.container);
  if (request.name !== '') validateCheckpointName(request.name);
  return host.locks.run(
    lockKey(request.namespace, request.container),
    () => takeLocked(host, request, report),
    request.signal,
  );
}

/** As takeCheckpoint, for a caller that holds the container's lock. */
export async function takeLocked(host: Host, request: TakeRequest, report: Report): Promise<CheckpointEntry> {
  const started = process.hrtime.bigint();
  const { namespace, container } = request;
  const client = host.containerd.namespace(namespace);
  const found = [
    findContainer(client, container),
    findTask(client, container),
    findEngine(host.config.daemon.run_dir, namespace, container),
  ] as const;
  const engineFound = found[2];
  const closeEngine = (): void => void engineFound.then((engine) => engine?.close()).catch(() => undefined);
  try {
    const [record, task, engine] = await Promise.all(found);
    if (record === undefined) throw noSuchContainer(namespace, container);
    assertRunning(request, task);
    const name =
      request.name !== ''
        ? request.name
        : defaultCheckpointName(new Date(), (taken) => host.catalog.has(namespace, container, taken));
    host.catalog.assertFree(namespace, container, name);
    const taking: Taking = {
      ...{ request, report, record, task, name, started },
      engine: task === undefined ? undefined : engine,
      memoryError: '',
      origin: inBackground(originOf(client, record)),
      id: newCheckpointId(),
      createdNs: BigInt(Date.now()) * 1_000_000n,
    };
    const unchanged = await takeUnchanged(host, taking);
    if (unchanged !== undefined) return unchanged;
    const judged = inBackground(judge(host, taking));
    const entry =
      record.snapshotter === snapshotterName
        ? await takeOfOwnDisk(host, taking, judged)
        : await takeOfForeignDisk(host, await judged);
    host.catalog.add(entry);
    if (entry.memoryError !== '') report.warn(`memory was not dumped: ${entry.memoryError}`);
    return entry;
  } finally {
    closeEngine();
  }
}

/** A result that is waited for later: until then its failure is nobody's. */
function inBackground<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

/**
 * Looks at what is in the way of a dump.
 * @returns the taking, disk only where the memory cannot be dumped: it need not stand still for the attempt
 * @throws FailedPrecondition where the memory is required then
 */
async function judge(host: Host, taking: Taking): Promise<Taking> {
  const { request, report, record, task, engine } = taking;
  if (request.diskOnly) return taking;
  const obstacles = await examineTask(host, request.namespace, record, task);
  const cannotDump =
    engine === undefined ? undefined : obstacles.find(({ severity }) => severity === 'error');
  if (cannotDump !== undefined && request.requireMemory) throw obstructed(request.container, cannotDump);
  for (const obstacle of obstacles)
    if (obstacle.severity === 'warning') report.warn(describeObstacle(obstacle));
  if (cannotDump === undefined) return taking;
  return { ...taking, request: { ...request, diskOnly: true }, memoryError: describeObstacle(cannotDump) };
}

/** Without a parent where it has no snapshot any more. */
async function originOf(client: NamespaceClient, record: Container): Promise<SnapshotOrigin> {
  if (record.snapshotKey === '') return { parent: '' };
  const { snapshotter, snapshotKey: key } = record;
  const answer = await client.snapshots.stat({ snapshotter, key }).catch((error: unknown) => {
    if (codeOf(error) === Code.NotFound) return undefined;
    throw error;
  });
  const { parent = '', labels = {} } = answer?.info ?? {};
  return { parent, mapping: mappingLabels(labels) };
}

function assertRunning(request: TakeRequest, task: Process | undefined): void {
  if (task?.status === Status.RUNNING || task?.status === Status.PAUSED) return;
  if (request.diskOnly && !request.exit) return;
  throw notRunning(request.container);
}

async function takeOfOwnDisk(host: Host, asked: Taking, judged: Promise<Taking>): Promise<CheckpointEntry> {
  const { record } = asked;
  const disk = host.store.findContainer(asked.request.namespace, record.snapshotKey);
  if (disk === undefined) {
    throw new NotFound(`the disk of container ${asked.request.container} is not in ${host.root}`, {
      subject: asked.request.container,
      reason: 'disk-not-found',
      remedy: 'see stasis ls --all-namespaces for disks that other hosts or databases left, and stasis adopt',
    });
  }
  const leaf = host.catalog.snapshotName([disk.dataset, MemoryStore.datasetOf(disk.dataset)], asked.name);
  const snapshot = `${disk.dataset}@${leaf}`;
  await using steps = new Steps(host.log);
  const [pool, stage] = await Promise.all([
    host.memory.ensure(disk.dataset),
    stageFor(host, asked, disk.dataset),
  ]);
  steps.undo('remove the staging folder', () => stage.remove());
  const taking = await judged;
  const { request } = taking;
  const properties = diskProperties({
    id: taking.id,
    name: taking.name,
    namespace: request.namespace,
    container: request.container,
    createdNs: taking.createdNs,
  });
  steps.undo('destroy the disk snapshot', () => host.zfs.destroyIdempotent(snapshot));

  const finish = async (instant: InstantResponse): Promise<CheckpointEntry> => {
    const entry = await storeMemory(host, taking, { dataset: disk.dataset, snapshot, pool, stage, instant });
    steps.commit();
    return entry;
  };
  request.signal.throwIfAborted();
  taking.report.phase(
    request.diskOnly ? 'snapshotting the disk' : 'freezing, dumping memory and snapshotting the disk',
  );
  const instant = async (): Promise<InstantResponse> =>
    takeInstant(host, taking, { snapshot, properties, syncPath: disk.rootfs, stage });
  const entry = request.exit
    ? await withPausedTask(host, request.namespace, request.container, async (stays) => {
        const made = await finish(await instant());
        stays();
        await endTask(host, request.namespace, request.container);
        return made;
      })
    : await finish(await instant());
  host.store.noteCheckpoint(disk.dataset, leaf, taking.id);
  return entry;
}

/** The frozen instant: in the shim where one of ours holds the container, else with what containerd offers. */
async function takeInstant(host: Host, taking: Taking, options: InstantOptions): Promise<InstantResponse> {
  const { request, engine, task, record } = taking;
  if (engine !== undefined && task !== undefined && task.status !== Status.STOPPED) {
    return dump(host, taking, engine, options);
  }
  const memoryError = request.diskOnly ? '' : notOurRuntime(record);
  if (request.requireMemory) throw memoryRequired(request.container, memoryError);
  const snapshotNow = async (): Promise<InstantResponse> => {
    const begin = process.hrtime.bigint();
    await syncfs(options.syncPath);
    const synced = process.hrtime.bigint();
    await host.zfs.snapshot([options.snapshot], { properties: options.properties });
    const end = process.hrtime.bigint();
    return {
      ...notDumped,
      memoryError,
      syncNs: synced - begin,
      snapshotNs: end - synced,
      frozenNs: end - begin,
    };
  };
  if (task?.status === Status.RUNNING) {
    return withPausedTask(host, request.namespace, request.container, snapshotNow);
  }
  return snapshotNow();
}
