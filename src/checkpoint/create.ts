import { existsSync } from 'node:fs';
import { untilBack } from '../containerd/away.ts';
import { findContainer, type NamespaceClient } from '../containerd/client.ts';
import { AlreadyExists, Code, codeOf } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { Mount } from '../proto/gen/containerd/mount.ts';
import type { CheckpointEntry } from './entry.ts';
import { applyDiff } from './foreign.ts';
import { ignoreNotFound, removeSnapshot } from './gone-already.ts';
import { type Host, type Report, snapshotterName } from './host.ts';
import type { OpenMemory } from './memory-store.ts';
import { named } from './named.ts';
import { diffFile } from './record.ts';
import { assertRestorable } from './runtime-choice.ts';
import { assertSpecFitsHost, decodeSpec, encodeSpec, specForId } from './spec.ts';
import { ioOf, type StartedTask, type StartOptions, startTask } from './start.ts';
import { Steps } from './steps.ts';
import { lateOptions } from '../sys/mount-late.ts';
import { notePlacing } from './placing.ts';
import { removedMeanwhile, removeOrphan } from './removed.ts';
import { removeTask } from './task.ts';

/** Label by which our snapshotter clones a checkpoint's disk; only labels under this prefix reach it. */
const checkpointLabel = 'containerd.io/snapshot/stasis.checkpoint';

export interface NewContainer {
  readonly container: string;
  readonly task: StartedTask;
  readonly diskNs: number;
  /** Removes it again: for a batch of which another one failed. */
  undo(): Promise<void>;
}

/** @throws AlreadyExists where containerd has a container of that name */
export async function assertFreeName(client: NamespaceClient, id: string): Promise<void> {
  if ((await findContainer(client, id)) !== undefined) throw nameTaken(id);
}

export function nameTaken(id: string): AlreadyExists {
  return new AlreadyExists(`container ${id} exists already`, {
    subject: id,
    reason: 'container-exists',
    remedy: 'choose another name',
  });
}

/**
 * Before anything is made: what is undone on a failure must be our own.
 * @throws AlreadyExists where there is a disk of that key without a container, kept by `ctr containers rm --keep-snapshot` say
 */
async function assertFreeDisk(
  host: Host,
  client: NamespaceClient,
  { id, snapshotter }: Container,
): Promise<void> {
  if (snapshotter === snapshotterName && host.store.findContainer(client.namespace, id) === undefined) return;
  // One that containerd has still to collect is there, and its key is free all the same.
  const answer = client.snapshots.stat({ snapshotter, key: id });
  const found = await answer.catch((error: unknown) => {
    if (codeOf(error) === Code.NotFound) return undefined;
    throw error;
  });
  if (found === undefined) return;
  throw new AlreadyExists(`there is a snapshot ${id} already, without a container`, {
    subject: id,
    reason: 'snapshot-exists',
    remedy: `choose another name, or remove it: ctr snapshots --snapshotter ${snapshotter} rm ${id}`,
  });
}

/**
 * Makes a container from a checkpoint, through containerd's public API alone, and starts it: from memory where
 * the checkpoint has it, else anew on the checkpoint's disk. A failure leaves nothing of it, nor does the signal.
 */
export async function createFromCheckpoint(
  host: Host,
  options: {
    namespace: string;
    id: string;
    entry: CheckpointEntry;
    memory: OpenMemory;
    /** Bring the memory in while it runs. */
    lazy: boolean;
    signal: AbortSignal;
  },
  report: Report,
): Promise<NewContainer> {
  const { namespace, id, entry, memory, signal } = options;
  const { record } = memory;
  const spec = specForId(decodeSpec(record.container.spec, entry.container), record.container.id, id);
  assertSpecFitsHost(spec, id, existsSync);
  const container: Container = {
    ...record.container,
    id,
    spec: encodeSpec(spec),
    snapshotter: entry.disk === 'snapshot' ? snapshotterName : record.container.snapshotter,
    snapshotKey: id,
    createdAt: undefined,
    updatedAt: undefined,
  };
  const client = host.containerd.namespace(namespace);
  if (entry.memory === 'image') await assertRestorable(host, container);
  await assertFreeDisk(host, client, container);
  using pending = host.pending.open({
    namespace,
    container: id,
    snapshotter: container.snapshotter,
    snapshotKey: id,
  });
  await using steps = new Steps(host.log, untilBack());
  const undo = (): Promise<void> => removeContainer(host, namespace, id, container.snapshotter);
  const name: Name = { taken: false, recorded: false };
  steps.undo('remove the unfinished container', async () => {
    // One that somebody else made meanwhile is not ours to remove.
    if (name.taken) await removeSnapshot(client, container.snapshotter, id);
    else await undo();
    pending.done();
  });

  const begin = process.hrtime.bigint();
  if (entry.disk === 'diff') await memory.ready; // it holds the changed files, which are applied before anything starts
  const imageDir = entry.memory === 'image' ? memory.imageDir : undefined;
  const io = await ioOf(undefined, record.terminal);
  const fill = options.lazy ? host.fills.note(namespace, id, entry, memory) : undefined;
  if (fill !== undefined) steps.undo('let the image go', async () => fill.abandon());
  const workDir = fill?.folder;
  let diskNs: number;
  let started: StartedTask;
  try {
    if (entry.disk === 'snapshot' && imageDir !== undefined) {
      const task = { io, imageDir, workDir, beforeStart: () => memory.ready };
      const made = await makeBoth(host, { ...options, name }, container, task, report);
      diskNs = Number(made.diskAt - begin);
      started = made.task;
    } else {
      const mounts = await makeDisk(host, { ...options, name }, container, report);
      diskNs = Number(process.hrtime.bigint() - begin);
      const beforeStart = (): Promise<void> => memory.ready;
      started = await startTask(client, container, { mounts, io, imageDir, workDir, beforeStart });
    }
    if ((await findContainer(client, id)) === undefined) throw removedMeanwhile(id, undefined);
  } catch (error) {
    const gone = name.recorded && (await findContainer(client, id).catch(() => container)) === undefined;
    if (!gone) throw named(id, 'could not be made, and nothing of it is left', 'not-made', error);
    await removeOrphan(host, namespace, container);
    throw removedMeanwhile(id, error);
  }
  signal.throwIfAborted(); // nothing is lost with a copy that has just begun
  steps.commit();
  fill?.begun();
  pending.done();
  return { container: id, task: started, diskNs, undo };
}

/** A container's name, which somebody else may take after it was found free. */
interface Name {
  taken: boolean;
  /** Our record was made. */
  recorded: boolean;
}

async function createRecord(client: NamespaceClient, container: Container, name: Name): Promise<void> {
  try {
    await client.containers.create({ container });
    name.recorded = true;
  } catch (error) {
    name.taken = codeOf(error) === Code.AlreadyExists;
    throw error;
  }
}

/**
 * Disk and task side by side: until CRIU looks at the disk, a restore needs no more of it than its place, and cloning takes
 * as long as all else before that.
 */
async function makeBoth(
  host: Host,
  options: { namespace: string; id: string; entry: CheckpointEntry; memory: OpenMemory; name: Name },
  container: Container,
  restoring: Omit<StartOptions, 'mounts'>,
  report: Report,
): Promise<{ task: StartedTask; diskAt: bigint }> {
  const { namespace, id } = options;
  const client = host.containerd.namespace(namespace);
  const marker = notePlacing(host.config.daemon.run_dir, namespace, id);
  const place = host.store.whenPlaced(namespace, id);
  // containerd knows of the snapshot, and so could collect it, only when it is made: by then the record keeps it.
  const recorded = createRecord(client, container, options.name);
  const making = Promise.allSettled([prepareDisk(client, options, container.snapshotter, report), recorded])
    .then(([disk, record]) => {
      if (record.status === 'rejected') throw record.reason;
      if (disk.status === 'rejected') throw disk.reason;
      return { mounts: disk.value, at: process.hrtime.bigint() };
    })
    .finally(() => {
      place.close();
      marker.done();
    });
  const early = await Promise.race([place.mount, making.then(() => undefined)]);
  await recorded.catch(() => making); // which then fails for the same reason, when nothing is under way any more
  const starting = async (mounts: Mount[]): Promise<StartedTask> =>
    startTask(client, container, { ...restoring, mounts });
  if (early === undefined) {
    const { mounts, at } = await making;
    return { task: await starting(mounts), diskAt: at };
  }
  const [started, made] = await Promise.allSettled([
    starting([{ ...early, target: '', options: lateOptions(early.options, marker.path) }]),
    making,
  ]);
  if (made.status === 'rejected') throw made.reason;
  const { mounts, at } = made.value;
  if (started.status === 'fulfilled') return { task: started.value, diskAt: at };
  // Somebody else took the place meanwhile, and the disk went to another.
  if (mounts[0]?.source !== early.source) return { task: await starting(mounts), diskAt: at };
  throw started.reason;
}

/**
 * The container's record first, then its disk: the record refers to the snapshot by its key, so that containerd's
 * collector keeps it from its first moment on. A diff needs a lease, since the blob it comes from has no such owner.
 */
async function makeDisk(
  host: Host,
  options: { namespace: string; id: string; entry: CheckpointEntry; memory: OpenMemory; name: Name },
  container: Container,
  report: Report,
): Promise<Mount[]> {
  const { namespace, entry } = options;
  const make = async (client: NamespaceClient): Promise<Mount[]> => {
    await createRecord(client, container, options.name);
    return prepareDisk(client, options, container.snapshotter, report);
  };
  return entry.disk === 'diff'
    ? host.containerd.withLease(namespace, make)
    : make(host.containerd.namespace(namespace));
}

async function prepareDisk(
  client: NamespaceClient,
  { id, entry, memory }: { id: string; entry: CheckpointEntry; memory: OpenMemory },
  snapshotter: string,
  report: Report,
): Promise<Mount[]> {
  const { parent } = memory.record;
  if (entry.disk === 'diff') {
    return applyDiff(
      client,
      { snapshotter, key: id, origin: memory.record, diffPath: `${memory.path}/${diffFile}` },
      report,
    );
  }
  const labels = { [checkpointLabel]: entry.id };
  try {
    return (await client.snapshots.prepare({ snapshotter, key: id, parent, labels })).mounts;
  } catch (error) {
    if (codeOf(error) !== Code.NotFound || parent === '') throw error;
    // The image was removed since. The checkpoint's dataset stands on its own, so it needs no parent there.
    return (await client.snapshots.prepare({ snapshotter, key: id, parent: '', labels })).mounts;
  }
}

/** Removes a container that an operation made: task, record and snapshot. What is missing is no error. */
export async function removeContainer(
  host: Host,
  namespace: string,
  id: string,
  snapshotter: string,
): Promise<void> {
  const client = host.containerd.namespace(namespace);
  await removeTask(host, namespace, id);
  await ignoreNotFound(client.containers.delete({ id }));
  await removeSnapshot(client, snapshotter, id);
}
