import { existsSync } from 'node:fs';
import { findContainer, findTask, type NamespaceClient } from '../containerd/client.ts';
import { FailedPrecondition, messageOf } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { Mount } from '../proto/gen/containerd/mount.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import type { CheckpointEntry } from './entry.ts';
import { createFromCheckpoint, nameTaken } from './create.ts';
import { applyDiff } from './foreign.ts';
import { type Host, lockKey, type Report } from './host.ts';
import type { OpenMemory } from './memory-store.ts';
import { validateContainerId, validateNamespace } from './names.ts';
import { diffFile } from './record.ts';
import { findEngine } from './shim-client.ts';
import { assertSpecFitsHost, decodeSpec } from './spec.ts';
import { fitsInStaging, openStage, type Stage } from './staging.ts';
import { ioOf, startTask } from './start.ts';
import { Steps } from './steps.ts';
import { removeTask } from './task.ts';

export interface RestoreRequest {
  readonly namespace: string;
  readonly container: string;
  /** Empty: the latest. */
  readonly checkpoint: string;
  /** Empty: in place. */
  readonly as: string;
  readonly requireMemory: boolean;
  readonly signal: AbortSignal;
}

export interface Restored {
  readonly container: string;
  readonly checkpoint: string;
  readonly pid: number;
  readonly memory: boolean;
  readonly totalNs: number;
  readonly stopNs: number;
  readonly diskNs: number;
  readonly createNs: number;
  readonly startNs: number;
}

/**
 * Brings a container back to a checkpoint, in place or under a new name. A failure leaves everything as it
 * was: the running container too, which is brought back from an image made just before it was stopped.
 */
export async function restore(host: Host, request: RestoreRequest, report: Report): Promise<Restored> {
  validateNamespace(request.namespace);
  validateContainerId(request.container);
  const target = request.as === '' ? request.container : request.as;
  validateContainerId(target);
  const keys = [lockKey(request.namespace, request.container), lockKey(request.namespace, target)];
  return host.locks.run(keys, async () => {
    const started = process.hrtime.bigint();
    const { namespace, container } = request;
    const entry = host.catalog.resolve(namespace, container, request.checkpoint);
    assertMemory(entry, request.requireMemory, report);
    const client = host.containerd.namespace(namespace);
    return host.catalog.reading(entry, async () => {
      const [memory, record, task] = await Promise.all([
        host.memory.open(entry),
        findContainer(client, target),
        findTask(client, target),
      ]);
      try {
        request.signal.throwIfAborted();
        if (request.as !== '' && record !== undefined) throw nameTaken(request.as);
        const done =
          record === undefined
            ? await restoreNew(host, { namespace, id: target, entry, memory }, report)
            : await rewind(host, { namespace, record, task, entry, memory }, report);
        return {
          container: target,
          checkpoint: entry.name,
          memory: entry.memory === 'image',
          totalNs: Number(process.hrtime.bigint() - started),
          ...done,
        };
      } finally {
        host.later('close a memory image', memory.close());
      }
    });
  });
}

/** @throws FailedPrecondition where memory is insisted on and the checkpoint has none */
export function assertMemory(entry: CheckpointEntry, required: boolean, report: Report): void {
  if (entry.memory === 'image') return;
  const why = entry.memoryError === '' ? '' : ` (${entry.memoryError})`;
  if (required) {
    throw new FailedPrecondition(`checkpoint ${entry.name} of ${entry.container} holds no memory${why}`, {
      subject: `${entry.container}@${entry.name}`,
      reason: 'no-memory-image',
      remedy: "without --require-memory the process is started anew on the checkpoint's disk",
    });
  }
  report.warn(`checkpoint ${entry.name} holds no memory${why}: the process starts anew on its disk`);
}

type Phases = Pick<Restored, 'pid' | 'stopNs' | 'diskNs' | 'createNs' | 'startNs'>;

async function restoreNew(
  host: Host,
  options: { namespace: string; id: string; entry: CheckpointEntry; memory: OpenMemory },
  report: Report,
): Promise<Phases> {
  report.phase('cloning the disk and restoring memory');
  const made = await createFromCheckpoint(host, options, report);
  return { stopNs: 0, diskNs: made.diskNs, ...made.task };
}

interface Rewinding {
  readonly namespace: string;
  readonly record: Container;
  readonly task: Process | undefined;
  readonly entry: CheckpointEntry;
  readonly memory: OpenMemory;
}

/** Stops the task, points the container's snapshot key at a new clone of the checkpoint, and restores. */
async function rewind(host: Host, rewinding: Rewinding, report: Report): Promise<Phases> {
  const { namespace, record, task, entry, memory } = rewinding;
  const client = host.containerd.namespace(namespace);
  assertSpecFitsHost(decodeSpec(memory.record.container.spec, record.id), record.id, existsSync);
  await using steps = new Steps(host.log);
  const io = await ioOf(task, memory.record.terminal);

  const begin = process.hrtime.bigint();
  report.phase('stopping the container');
  const safety = await stop(host, rewinding, report);
  if (safety !== undefined) {
    steps.undo('remove the image of the stopped task', () => safety.stage.remove());
    steps.undo('bring the stopped task back', async () => {
      const { mounts } = await client.snapshots.mounts({
        snapshotter: record.snapshotter,
        key: record.snapshotKey,
      });
      await startTask(client, record, {
        mounts,
        io: await ioOf(task, task?.terminal ?? false),
        imageDir: safety.image,
      });
    });
  }
  await removeTask(host, namespace, record.id);
  const stopped = process.hrtime.bigint();

  report.phase('putting the disk back');
  const disk = await putDiskBack(host, client, rewinding, steps, report);
  const placed = process.hrtime.bigint();

  report.phase('restoring memory');
  const started = await startTask(client, disk.record, {
    mounts: disk.mounts,
    io,
    imageDir: entry.memory === 'image' ? memory.imageDir : undefined,
  });
  steps.commit();
  host.later(
    'tidy up after a rewind',
    tidy(() => disk.done(), safety?.stage),
  );
  return { stopNs: Number(stopped - begin), diskNs: Number(placed - stopped), ...started };
}

async function tidy(done: () => Promise<void>, stage: Stage | undefined): Promise<void> {
  await done();
  await stage?.remove();
}

/**
 * Ends a running task, keeping an image of it on the tmpfs, from which it comes back if the restore fails.
 * Where no such image can be made the task comes back anew on its present disk.
 */
async function stop(
  host: Host,
  { namespace, record, task }: Rewinding,
  report: Report,
): Promise<{ stage: Stage; image: string | undefined } | undefined> {
  if (task === undefined || task.status === Status.STOPPED) return undefined;
  const stage = await openStage(host.staging);
  const engine = await findEngine(host.config.daemon.run_dir, namespace, record.id);
  try {
    const client = host.containerd.namespace(namespace);
    const { processes } = await client.tasks.listPids({ containerId: record.id });
    if (
      engine === undefined ||
      !(await fitsInStaging(
        host.staging,
        processes.map((process) => process.pid),
      ))
    ) {
      return { stage, image: undefined };
    }
    const answer = await engine.calls.checkpoint({
      id: record.id,
      imageDir: stage.imageDir,
      workDir: stage.workDir,
      snapshot: '',
      properties: {},
      syncPath: '',
      exit: true,
      requireMemory: true,
      timeoutMs: BigInt(host.config.checkpoint.timeout) * 1000n,
    });
    return { stage, image: answer.memory ? stage.imageDir : undefined };
  } catch (error) {
    report.warn(`the present state of ${record.id} cannot be kept while it is restored: ${messageOf(error)}`);
    return { stage, image: undefined };
  } finally {
    engine?.close();
  }
}

/** With a snapshotter and `/` and anything: label of what refers to a snapshot; containerd's docs/garbage-collection.md. */
const keepSnapshot = 'containerd.io/gc.ref.snapshot.';

interface DiskBack {
  readonly mounts: Mount[];
  /** The container's record as it now is. */
  readonly record: Container;
  /** Drops what the former disk alone needed. */
  done(): Promise<void>;
}

async function putDiskBack(
  host: Host,
  client: NamespaceClient,
  { record, entry, memory }: Rewinding,
  steps: Steps,
  report: Report,
): Promise<DiskBack> {
  const former = memory.record.container;
  const sameSpec =
    Buffer.compare(former.spec?.value ?? Buffer.alloc(0), record.spec?.value ?? Buffer.alloc(0)) === 0;
  let target: Container = sameSpec ? record : { ...record, spec: former.spec };
  const labelPaths: string[] = [];
  const update = async (container: Container): Promise<void> => {
    // containerd's names of the fields that may change: core/metadata/containers.go
    await client.containers.update({ container, updateMask: ['spec', 'snapshotkey', ...labelPaths] });
  };
  if (entry.disk === 'snapshot') {
    const disk = host.store.findContainer(client.namespace, record.snapshotKey);
    if (disk === undefined) {
      throw new FailedPrecondition(`container ${record.id} has no disk in ${host.root} to rewind`, {
        subject: record.id,
        reason: 'disk-not-found',
        remedy: `bring the checkpoint back under another name: stasis restore ${record.id} --as NEW`,
      });
    }
    const rewound = await host.store.rewind(disk.name, entry.snapshot);
    steps.undo('go back to the former disk', () => rewound.undo());
    if (!sameSpec) {
      steps.undo('put the former spec back', () => update(record));
      await update(target);
    }
    const { mounts } = await client.snapshots.mounts({
      snapshotter: record.snapshotter,
      key: record.snapshotKey,
    });
    return { mounts, record: target, done: () => rewound.done() };
  }
  const key = `${record.id}-${entry.id}-${Date.now().toString(36)}`;
  // The collector would take the layer that the record does not name any more, while it may still be gone back to.
  const kept = `${keepSnapshot}${record.snapshotter}/stasis-former`;
  labelPaths.push(`labels.${kept}`);
  const labels = { ...record.labels, [kept]: record.snapshotKey };
  target = { ...target, snapshotter: former.snapshotter, snapshotKey: key, labels };
  const snapshotter = former.snapshotter;
  steps.undo('remove the new writable layer', async () => {
    await client.snapshots.remove({ snapshotter, key });
  });
  const mounts = await host.containerd.withLease(client.namespace, async (leased) => {
    const diffPath = `${memory.path}/${diffFile}`;
    const made = await applyDiff(leased, { snapshotter, key, origin: memory.record, diffPath }, report);
    steps.undo('put the former record back', () => update(record));
    await update(target);
    return made;
  });
  return {
    mounts,
    record: target,
    done: async () => {
      await client.containers.update({ container: record, updateMask: labelPaths });
      await client.snapshots.remove({ snapshotter: record.snapshotter, key: record.snapshotKey });
    },
  };
}
