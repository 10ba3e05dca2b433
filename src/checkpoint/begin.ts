import { examineTask } from '../doctor/examine.ts';
import { describeObstacle, type Obstacle } from '../doctor/obstacle.ts';
import { findContainer, findTask, type NamespaceClient } from '../containerd/client.ts';
import { Code, codeOf, NotFound } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import type { InstantResponse } from '../proto/gen/stasis/engine.ts';
import { mappingLabels } from '../../snapshotter/idmap.ts';
import { sizeLabels } from '../../snapshotter/size-limit.ts';
import { type Identity, newCheckpointId } from './entry.ts';
import { missingContainer } from './missing.ts';
import { type Host, type Report } from './host.ts';
import { MemoryStore } from './memory-store.ts';
import type { SnapshotOrigin } from './record.ts';
import { endSessions } from './sessions.ts';
import { findEngine } from './shim-client.ts';
import type { Stage } from './staging.ts';
import { notRunning, obstructed, stageFor, type TakeRequest, type Taking } from './taking.ts';

/** An instant in which no memory was dumped. */
export const notDumped: InstantResponse = {
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
  parentError: '',
};

/** A checkpoint that is about to be taken. */
export interface Begun {
  readonly taking: Taking;
  /** Looks at what is in the way of a dump. @returns the taking as it then is, to be waited for when it is needed */
  judge(): Promise<Taking>;
  /** Gives the connection to the shim back. */
  close(): void;
}

/**
 * Finds the container, its task and its shim.
 * @param name chooses the checkpoint's name, once there is such a container
 * @param set the set that it is to belong to
 * @throws NotFound, FailedPrecondition (not running)
 */
export async function beginTaking(
  host: Host,
  request: TakeRequest,
  report: Report,
  name: () => string,
  set = '',
): Promise<Begun> {
  const started = process.hrtime.bigint();
  const { namespace, container } = request;
  const client = host.containerd.namespace(namespace);
  const found = [
    findContainer(client, container),
    findTask(client, container),
    findEngine(host.config.daemon.run_dir, namespace, container),
  ] as const;
  const engineFound = found[2];
  const close = (): void => void engineFound.then((engine) => engine?.close()).catch(() => undefined);
  try {
    const [record, task, engine] = await Promise.all(found);
    if (record === undefined) throw await missingContainer(host, namespace, container);
    assertRunning(request, task);
    await endSessions(host, request, task === undefined ? undefined : engine, report);
    if (!request.diskOnly) await host.fills.whenFilled(namespace, container, report, request.signal);
    const taking: Taking = {
      ...{ request, report, record, task, name: name(), set, started },
      engine: task === undefined ? undefined : engine,
      memoryError: '',
      origin: inBackground(originOf(client, record)),
      id: newCheckpointId(),
      createdNs: BigInt(Date.now()) * 1_000_000n,
    };
    return { taking, judge: () => inBackground(judge(host, taking)), close };
  } catch (error) {
    close();
    throw error;
  }
}

/** What a checkpoint's snapshots are marked with. */
export function identityOf(taking: Taking): Identity {
  const { request, id, name, set, createdNs } = taking;
  return { id, name, set, namespace: request.namespace, container: request.container, createdNs };
}

/** A container's disk in our pool, and where its memory is dumped. */
export interface OpenDisk {
  readonly dataset: string;
  readonly rootfs: string;
  /** Folder of its memory dataset. */
  readonly pool: string;
  readonly stage: Stage;
}

/** @throws NotFound where the disk is not in our root dataset */
export async function openDisk(host: Host, taking: Taking): Promise<OpenDisk> {
  const { request, record } = taking;
  const disk = host.store.findContainer(request.namespace, record.snapshotKey);
  if (disk === undefined) {
    throw new NotFound(`the disk of container ${request.container} is not in ${host.root}`, {
      subject: request.container,
      reason: 'disk-not-found',
      remedy: 'see stasis ls --all-namespaces for disks that other hosts or databases left, and stasis adopt',
    });
  }
  const { dataset, rootfs } = disk;
  const [pool, stage] = await Promise.all([host.memory.ensure(dataset), stageFor(host, taking, dataset)]);
  return { dataset, rootfs, pool, stage };
}

/** The name of the two snapshots of a checkpoint, and that of the disk's in full. */
export function nameSnapshot(host: Host, dataset: string, name: string): { leaf: string; snapshot: string } {
  const leaf = host.catalog.snapshotName(
    [dataset, MemoryStore.datasetOf(dataset)],
    name,
    host.store.snapshotNames(dataset),
  );
  return { leaf, snapshot: `${dataset}@${leaf}` };
}

/** A result that is waited for later: until then its failure is nobody's. */
export function inBackground<T>(work: Promise<T>): Promise<T> {
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
    if (obstacle.severity === 'warning' && !isSettled(request, obstacle))
      report.warn(describeObstacle(obstacle));
  if (cannotDump === undefined) return taking;
  return { ...taking, request: { ...request, diskOnly: true }, memoryError: describeObstacle(cannotDump) };
}

/** An exec session that goes, or is gone, by the time of the instant. */
function isSettled({ execSessions }: TakeRequest, { name }: Obstacle): boolean {
  return name === 'exec-session' && execSessions !== 'leave';
}

/** How a container's snapshot was made; without a parent where it has none any more. */
export async function originOf(client: NamespaceClient, record: Container): Promise<SnapshotOrigin> {
  if (record.snapshotKey === '') return { parent: '' };
  const { snapshotter, snapshotKey: key } = record;
  const answer = await client.snapshots.stat({ snapshotter, key }).catch((error: unknown) => {
    if (codeOf(error) === Code.NotFound) return undefined;
    throw error;
  });
  const { parent = '', labels = {} } = answer?.info ?? {};
  return { parent, mapping: { ...mappingLabels(labels), ...sizeLabels(labels) } };
}

function assertRunning(request: TakeRequest, task: Process | undefined): void {
  if (task?.status === Status.RUNNING || task?.status === Status.PAUSED) return;
  if (request.diskOnly && !request.exit) return;
  throw notRunning(request.container);
}
