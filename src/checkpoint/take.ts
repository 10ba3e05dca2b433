import { findContainer, findTask, noSuchContainer } from '../containerd/client.ts';
import { FailedPrecondition, messageOf, NotFound } from '../errors.ts';
import { syncfs } from '../sys/syncfs.ts';
import { type Container } from '../proto/gen/containerd/containers.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import type { InstantResponse } from '../proto/gen/stasis/engine.ts';
import { type CheckpointEntry, diskProperties, newCheckpointId } from './entry.ts';
import { takeOfForeignDisk } from './foreign.ts';
import { type Host, lockKey, type Report, snapshotterName } from './host.ts';
import {
  defaultCheckpointName,
  validateCheckpointName,
  validateContainerId,
  validateNamespace,
} from './names.ts';
import { findEngine, fromShim, type Engine } from './shim-client.ts';
import { fitsInStaging, openStage, type Stage } from './staging.ts';
import { Steps } from './steps.ts';
import { endTask, withPausedTask } from './task.ts';
import { MemoryStore } from './memory-store.ts';

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
  readonly signal: AbortSignal;
}

/** What the steps of one checkpoint share. */
export interface Taking {
  readonly request: TakeRequest;
  readonly report: Report;
  readonly record: Container;
  readonly task: Process | undefined;
  readonly engine: Engine | undefined;
  /** Name of the parent snapshot in containerd. */
  readonly parent: string;
  readonly id: string;
  readonly name: string;
  readonly createdNs: bigint;
  readonly started: bigint;
}

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
  return host.locks.run(lockKey(request.namespace, request.container), () =>
    takeLocked(host, request, report),
  );
}

/** As takeCheckpoint, for a caller that holds the container's lock. */
export async function takeLocked(host: Host, request: TakeRequest, report: Report): Promise<CheckpointEntry> {
  const started = process.hrtime.bigint();
  const { namespace, container } = request;
  const client = host.containerd.namespace(namespace);
  const [record, task] = await Promise.all([findContainer(client, container), findTask(client, container)]);
  if (record === undefined) throw noSuchContainer(namespace, container);
  assertRunning(request, task);
  const name =
    request.name !== ''
      ? request.name
      : defaultCheckpointName(new Date(), (taken) => host.catalog.has(namespace, container, taken));
  host.catalog.assertFree(namespace, container, name);
  const engine =
    task === undefined ? undefined : await findEngine(host.config.daemon.run_dir, namespace, container);
  try {
    const onOurs = record.snapshotter === snapshotterName;
    const parent =
      record.snapshotKey === ''
        ? ''
        : ((await client.snapshots.stat({ snapshotter: record.snapshotter, key: record.snapshotKey })).info
            ?.parent ?? '');
    const taking: Taking = {
      request,
      report,
      record,
      task,
      engine,
      parent,
      id: newCheckpointId(),
      name,
      createdNs: BigInt(Date.now()) * 1_000_000n,
      started,
    };
    const entry = onOurs ? await takeOfOwnDisk(host, taking) : await takeOfForeignDisk(host, taking);
    host.catalog.add(entry);
    if (entry.memoryError !== '') report.warn(`memory was not dumped: ${entry.memoryError}`);
    return entry;
  } finally {
    engine?.close();
  }
}

function assertRunning(request: TakeRequest, task: Process | undefined): void {
  if (task?.status === Status.RUNNING || task?.status === Status.PAUSED) return;
  if (request.diskOnly && !request.exit) return;
  throw new FailedPrecondition(`container ${request.container} is not running`, {
    subject: request.container,
    reason: 'not-running',
    remedy: `start it, or keep its disk alone with: stasis checkpoint ${request.container} --disk-only`,
  });
}

async function takeOfOwnDisk(host: Host, taking: Taking): Promise<CheckpointEntry> {
  const { request, record } = taking;
  const disk = host.store.findContainer(request.namespace, record.snapshotKey);
  if (disk === undefined) {
    throw new NotFound(`the disk of container ${request.container} is not in ${host.root}`, {
      subject: request.container,
      reason: 'disk-not-found',
      remedy: 'see stasis ls --all-namespaces for disks that other hosts or databases left, and stasis adopt',
    });
  }
  await using steps = new Steps(host.log);
  const [pool, stage] = await Promise.all([
    host.memory.ensure(disk.dataset),
    stageFor(host, taking, disk.dataset),
  ]);
  steps.undo('remove the staging folder', () => stage.remove());
  const snapshot = `${disk.dataset}@${taking.name}`;
  const properties = diskProperties({
    id: taking.id,
    namespace: request.namespace,
    container: request.container,
    createdNs: taking.createdNs,
  });
  steps.undo('destroy the disk snapshot', () => host.zfs.destroyIdempotent(snapshot));

  const finish = async (instant: InstantResponse): Promise<CheckpointEntry> => {
    const entry = await storeMemory(host, taking, { dataset: disk.dataset, snapshot, pool, stage, instant });
    steps.commit();
    await stage.remove();
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
  host.store.noteCheckpoint(disk.dataset, taking.name);
  return entry;
}

interface InstantOptions {
  readonly snapshot: string;
  readonly properties: Readonly<Record<string, string>>;
  readonly syncPath: string;
  readonly stage: Stage;
}

/** The frozen instant: in the shim where one of ours holds the container, else with what containerd offers. */
async function takeInstant(host: Host, taking: Taking, options: InstantOptions): Promise<InstantResponse> {
  const { request, engine, task, record } = taking;
  if (engine !== undefined && task !== undefined && task.status !== Status.STOPPED) {
    return dump(host, taking, engine, options);
  }
  const memoryError = request.diskOnly
    ? ''
    : `its runtime is ${record.runtime?.name ?? 'unknown'}: only tasks that run under io.containerd.stasis.v2 can be dumped`;
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
    const response = await engine.calls.checkpoint({
      id: request.container,
      imageDir: request.diskOnly ? '' : options.stage.imageDir,
      workDir: options.stage.workDir,
      snapshot: options.snapshot ?? '',
      properties: { ...options.properties },
      syncPath: options.syncPath ?? '',
      exit: false,
      requireMemory: request.requireMemory,
      timeoutMs: BigInt(host.config.checkpoint.timeout) * 1000n,
    });
    request.signal.throwIfAborted();
    return response;
  } catch (error) {
    request.signal.throwIfAborted();
    if (request.requireMemory) throw memoryRequired(request.container, messageOf(error), error);
    throw fromShim(error, request.container);
  } finally {
    request.signal.removeEventListener('abort', abort);
  }
}

/** Puts the memory (or its absence) and the record in the pool, and makes the checkpoint whole. */
export async function storeMemory(
  host: Host,
  taking: Taking,
  made: {
    dataset: string;
    snapshot: string;
    pool: string;
    stage: Stage;
    instant: InstantResponse;
    files?: Record<string, string>;
  },
): Promise<CheckpointEntry> {
  const { request, record } = taking;
  const { instant } = made;
  const begin = process.hrtime.bigint();
  const inPlace = made.stage.imageDir.startsWith(`${made.pool}/`);
  await host.memory.write({
    dataset: made.dataset,
    name: taking.name,
    record: {
      version: 1,
      id: taking.id,
      container: record,
      parent: taking.parent,
      terminal: taking.task?.terminal ?? false,
    },
    imageDir: instant.memory ? made.stage.imageDir : undefined,
    inPlace,
    files: made.files ?? {},
    signal: request.signal,
    progress: (done, total) => taking.report.phase('storing memory', done, total),
  });
  const end = process.hrtime.bigint();
  const entry: CheckpointEntry = {
    id: taking.id,
    namespace: request.namespace,
    container: request.container,
    name: taking.name,
    createdNs: taking.createdNs,
    memory: instant.memory ? 'image' : 'none',
    disk: made.files === undefined ? 'snapshot' : 'diff',
    snapshot: made.snapshot,
    memorySnapshot: `${MemoryStore.datasetOf(made.dataset)}@${taking.name}`,
    memoryBytes: Number(instant.imageBytes),
    memoryError: instant.memoryError,
    image: record.image,
    runtime: record.runtime?.name ?? '',
    timings: {
      frozenNs: Number(instant.frozenNs),
      freezeNs: Number(instant.freezeNs),
      dumpNs: Number(instant.dumpNs),
      syncNs: Number(instant.syncNs),
      snapshotNs: Number(instant.snapshotNs),
      storeNs: Number(end - begin),
      totalNs: Number(end - taking.started),
    },
  };
  await host.memory.commit(made.dataset, entry);
  return entry;
}

/** On the tmpfs, or in the pool where the image would not fit there. */
export async function stageFor(host: Host, taking: Taking, dataset: string): Promise<Stage> {
  const { request, task } = taking;
  if (!request.diskOnly && task !== undefined) {
    const client = host.containerd.namespace(request.namespace);
    const { processes } = await client.tasks.listPids({ containerId: request.container });
    const pids = processes.map((process) => process.pid);
    if (!(await fitsInStaging(host.staging, pids))) {
      return openStage(host.staging, await host.memory.ensure(dataset));
    }
  }
  return openStage(host.staging);
}

export function memoryRequired(container: string, why: string, cause?: unknown): FailedPrecondition {
  return new FailedPrecondition(`the memory of container ${container} cannot be dumped: ${why}`, {
    subject: container,
    cause,
    reason: 'memory-not-dumped',
    remedy: 'without --require-memory the disk alone is kept; stasis info shows what this host can do',
  });
}
