import { Code, codeOf, FailedPrecondition, messageOf, type StasisError, Unavailable } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { Process } from '../proto/gen/containerd/task_types.ts';
import { describeObstacle, type Obstacle } from '../doctor/obstacle.ts';
import type { InstantRequest, InstantResponse } from '../proto/gen/stasis/engine.ts';
import type { CheckpointEntry } from './entry.ts';
import type { CheckpointRecord, SnapshotOrigin } from './record.ts';
import { type Host, type Report, runtimeName } from './host.ts';
import { cgroupPids, findCgroup } from '../sys/cgroup.ts';
import { snapshotOf } from '../zfs/names.ts';
import { MemoryStore } from './memory-store.ts';
import type { Precopied, Precopy } from './precopy.ts';
import { type ExecSessions, policyOf, sessionInTheWay } from './sessions.ts';
import { noteStandstill } from './unchanged.ts';
import { type Engine, fromShim } from './shim-client.ts';
import { fitsInStaging, openStage, type Stage } from './staging.ts';

export interface TakeRequest {
  readonly namespace: string;
  readonly container: string;
  /** Empty: a default name. */
  readonly name: string;
  /** End the container once the checkpoint is safe. */
  readonly exit: boolean;
  readonly diskOnly: boolean;
  /** Fail where memory cannot be had, instead of keeping the disk alone. */
  readonly requireMemory: boolean;
  /** What becomes of exec sessions. */
  readonly execSessions: ExecSessions;
  /** Copy memory while it runs first; undefined: all of it while it stands still. */
  readonly precopy?: Precopy | undefined;
  readonly signal: AbortSignal;
  /** Told when the instant is over, the container runs on and only storing is left. */
  readonly atInstant?: (entries: readonly CheckpointEntry[]) => void;
}

/** What the steps of one checkpoint share. */
export interface Taking {
  readonly request: TakeRequest;
  /** Why the memory is left out although it was wanted; empty where it is not. */
  readonly memoryError: string;
  readonly report: Report;
  readonly record: Container;
  readonly task: Process | undefined;
  readonly engine: Engine | undefined;
  /** Of the container's snapshot in containerd; asked for while the checkpoint is taken. */
  readonly origin: Promise<SnapshotOrigin>;
  readonly id: string;
  readonly name: string;
  /** Id of the set that it is taken in; empty where it is alone. */
  readonly set: string;
  readonly createdNs: bigint;
  readonly started: bigint;
}

export interface InstantOptions {
  readonly snapshot: string;
  readonly properties: Readonly<Record<string, string>>;
  readonly syncPath: string;
  readonly stage: Stage;
  /** What the dump may refer to. */
  readonly precopied?: Precopied | undefined;
}

/** Asks the shim for the instant. The connection closes when the caller gives up, and the shim undoes. */
export async function dump(
  host: Host,
  taking: Taking,
  engine: Engine,
  options: Omit<InstantOptions, 'snapshot' | 'syncPath' | 'properties'> & Partial<InstantOptions>,
): Promise<InstantResponse> {
  const { request } = taking;
  const abort = (): void => engine.close();
  request.signal.addEventListener('abort', abort, { once: true });
  try {
    const response = await engine.calls.checkpoint(instantRequest(host, taking, options));
    request.signal.throwIfAborted();
    return response;
  } catch (error) {
    request.signal.throwIfAborted();
    throw asCallerSees(error, request);
  } finally {
    request.signal.removeEventListener('abort', abort);
  }
}

/** The instant in the terms of the shim. */
export function instantRequest(
  host: Host,
  { request }: Taking,
  options: Pick<InstantOptions, 'stage'> & Partial<InstantOptions>,
): InstantRequest {
  return {
    id: request.container,
    imageDir: request.diskOnly ? '' : options.stage.imageDir,
    workDir: options.stage.workDir,
    snapshot: options.snapshot ?? '',
    properties: { ...options.properties },
    syncPath: options.syncPath ?? '',
    exit: false,
    requireMemory: request.requireMemory,
    timeoutMs: BigInt(host.config.checkpoint.timeout) * 1000n,
    sessions: policyOf(request),
    parentPath: options.precopied?.parentPath ?? '',
  };
}

/** An error of the shim's about a container, as an error of the checkpoint's. */
export function asCallerSees(error: unknown, request: TakeRequest): StasisError {
  const { container } = request;
  if (codeOf(error) === Code.NotFound) return notRunning(container); // it ended meanwhile
  if (codeOf(error) === Code.Unavailable) return cutOff(error, container);
  const session = sessionInTheWay(error, request);
  if (session !== undefined) return session;
  if (request.requireMemory) return memoryRequired(container, messageOf(error));
  return fromShim(error, container);
}

/** The shim, or its worker, has gone. What is left of a guarded one's dump the next worker undoes; any other's containers go with it. */
function cutOff(error: unknown, container: string): StasisError {
  return new Unavailable(`no checkpoint of container ${container} was made: ${messageOf(error)}`, {
    subject: container,
    reason: 'cut-off',
    cause: error,
    remedy: `what was begun of it is undone; see that the container runs, and take it again: stasis ls ${container}`,
  });
}

/** What the instant has left. */
export interface Made {
  readonly dataset: string;
  readonly snapshot: string;
  readonly instant: InstantResponse;
  readonly files?: Record<string, string>;
}

/** The checkpoint as it is, or will be, when it is stored. */
export function entryOf(taking: Taking, made: Made, storeNs: number): CheckpointEntry {
  const { request, record } = taking;
  const { instant } = made;
  return {
    id: taking.id,
    namespace: request.namespace,
    container: request.container,
    name: taking.name,
    set: taking.set,
    createdNs: taking.createdNs,
    memory: instant.memory ? 'image' : 'none',
    disk: made.files === undefined ? 'snapshot' : 'diff',
    snapshot: made.snapshot,
    memorySnapshot: `${MemoryStore.datasetOf(made.dataset)}@${snapshotOf(made.snapshot)}`,
    memoryBytes: Number(instant.imageBytes),
    memoryError: taking.memoryError || instant.memoryError,
    image: record.image,
    runtime: record.runtime?.name ?? '',
    timings: {
      frozenNs: Number(instant.frozenNs),
      freezeNs: Number(instant.freezeNs),
      dumpNs: Number(instant.dumpNs),
      syncNs: Number(instant.syncNs),
      snapshotNs: Number(instant.snapshotNs),
      storeNs,
      totalNs: Number(process.hrtime.bigint() - taking.started),
    },
  };
}

/** Puts the memory (or its absence) and the record in the pool, and makes the checkpoint whole. Takes the stage over. */
export async function storeMemory(
  host: Host,
  taking: Taking,
  made: Made & { pool: string; stage: Stage },
): Promise<CheckpointEntry> {
  const { request, record } = taking;
  const { instant } = made;
  const begin = process.hrtime.bigint();
  const inPlace = made.stage.imageDir.startsWith(`${made.pool}/`);
  const kept: CheckpointRecord = {
    version: 1,
    id: taking.id,
    container: record,
    ...(await taking.origin),
    terminal: taking.task?.terminal ?? false,
  };
  const writtenBytes = await host.memory.write({
    dataset: made.dataset,
    name: taking.name,
    record: kept,
    imageDir: instant.memory ? made.stage.imageDir : undefined,
    inPlace,
    files: made.files ?? {},
    links: host.config.checkpoint.links,
    signal: request.signal,
    progress: (done, total) => taking.report.phase('storing memory', done, total),
  });
  const end = process.hrtime.bigint();
  const entry: CheckpointEntry = { ...entryOf(taking, made, Number(end - begin)), writtenBytes };
  await host.memory.commit(entry);
  if (made.files !== undefined && !inPlace)
    host.later('empty the head of a memory image', host.memory.clear(made.dataset));
  await noteStandstill(host, taking, entry, instant);
  if (entry.memory === 'image' && entry.disk === 'snapshot' && !inPlace) {
    await host.images.keep(entry.id, { stage: made.stage, record: kept, bytes: entry.memoryBytes });
  } else {
    await made.stage.remove();
  }
  return entry;
}

/** On the tmpfs, or in the pool where the image would not fit there. */
export async function stageFor(host: Host, taking: Taking, dataset: string): Promise<Stage> {
  const { request, task } = taking;
  if (!request.diskOnly && task !== undefined) {
    const pids = await findCgroup(task.pid).then(cgroupPids, () => []); // it has ended
    if (!(await fitsInStaging(host.staging, pids))) {
      return openStage(host.staging, await host.memory.openHead(dataset));
    }
  }
  return openStage(host.staging);
}

export function memoryRequired(container: string, why: string): FailedPrecondition {
  const reason = why.replace(`the memory of ${container} cannot be dumped: `, ''); // the shim says so too
  return new FailedPrecondition(`the memory of container ${container} cannot be dumped: ${reason}`, {
    subject: container,
    reason: 'memory-not-dumped',
    remedy: 'without --require-memory the disk alone is kept; stasis info shows what this host can do',
  });
}

/** The error for memory that is required where something in the container is in the way of a dump. */
export function obstructed(container: string, obstacle: Obstacle): FailedPrecondition {
  return new FailedPrecondition(
    `the memory of container ${container} cannot be dumped: ${describeObstacle(obstacle)}`,
    { subject: container, reason: 'not-checkpointable', remedy: obstacle.remedy },
  );
}

/** Why a container of another runtime cannot be dumped. */
export function notOurRuntime(record: Container): string {
  return `its runtime is ${record.runtime?.name ?? 'unknown'}: only tasks that run under ${runtimeName} can be dumped`;
}

/** The error for a container that has no running task. */
export function notRunning(container: string): FailedPrecondition {
  return new FailedPrecondition(`container ${container} is not running`, {
    subject: container,
    reason: 'not-running',
    remedy: `start it, or keep its disk alone with: stasis checkpoint ${container} --disk-only`,
  });
}
