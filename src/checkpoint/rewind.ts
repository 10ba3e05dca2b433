import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { untilBack } from '../containerd/away.ts';
import {
  findTask,
  isContainerdAway,
  isShimSilent,
  type NamespaceClient,
  silentShim,
} from '../containerd/client.ts';
import { Code, codeOf, FailedPrecondition, messageOf, StasisError } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { Mount } from '../proto/gen/containerd/mount.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import { SessionPolicy } from '../proto/gen/stasis/engine.ts';
import { readImage } from '../criu/image.ts';
import { bringBack } from './bring-back.ts';
import { cgroupPids, findCgroup } from '../sys/cgroup.ts';
import { strangers } from '../sys/own-processes.ts';
import { isAlive, startTimeOf } from '../sys/process.ts';
import type { CheckpointEntry } from './entry.ts';
import { applyDiff } from './foreign.ts';
import { hasDisk } from './find.ts';
import { forgetFormerLayer, keepingFormerLayer, pointRecord } from './former-record.ts';
import { removeSnapshot } from './gone-already.ts';
import type { Host, Report } from './host.ts';
import type { OpenMemory } from './memory-store.ts';
import { named } from './named.ts';
import type { RewindPlace } from './pod.ts';
import { isRunning, newNote } from './rewind-notes.ts';
import { diffFile } from './record.ts';
import { type Engine, findEngine } from './shim-client.ts';
import { assertRestorable } from './runtime-choice.ts';
import { assertSpecFitsHost, decodeSpec } from './spec.ts';
import { fitsInStaging, openStage, removeStage, type Stage } from './staging.ts';
import { assertNotRemoved, isRemoved, removedMeanwhile, removeOrphan } from './removed.ts';
import type { Rewound } from '../../snapshotter/rewind.ts';
import { ioOf, type StartedTask, startTask } from './start.ts';
import { expectSoleDelete, type SoleDelete } from './sole-delete.ts';
import { Steps } from './steps.ts';
import { removeTask } from './task.ts';

/** For a shim that has just answered to say which processes there are. */
const LIST_TIMEOUT_MS = 10_000;

export interface Rewinding {
  readonly namespace: string;
  readonly record: Container;
  readonly task: Process | undefined;
  readonly entry: CheckpointEntry;
  readonly memory: OpenMemory;
  /** Bring the memory in while it runs. */
  readonly lazy: boolean;
  readonly signal: AbortSignal;
  /** Its part in bringing several back as one. */
  readonly place?: RewindPlace;
}

/** What a rewind answers of the new task, and how long its parts took. */
export type RewindTimes = StartedTask & { readonly stopNs: number; readonly diskNs: number };

/**
 * Stops the task, points the container's snapshot key at a new clone of the checkpoint, and restores. A failure brings back
 * what ran, and so does the signal until the new task runs: then it is done.
 * @throws what failed, or the signal's reason; an error with the reason `left-stopped` where what ran could not be brought back
 */
export async function rewind(host: Host, rewinding: Rewinding, report: Report): Promise<RewindTimes> {
  const { namespace, record } = rewinding;
  await using steps = new Steps(host.log, untilBack());
  using note = openNote(host, rewinding);
  using deletion = expectSoleDelete(host.config.daemon.run_dir, namespace, record.id);
  try {
    return await rewindBy(steps, { note, deletion }, host, rewinding, report);
  } catch (error) {
    await leaveOthers(host, rewinding, error);
    report.phase('bringing back what ran');
    const failures = await steps.rollBack();
    const failure = failures.find(({ what }) => essential.has(what));
    if (await isRemoved(host.containerd.namespace(namespace), record).catch(() => false)) {
      await removeOrphan(host, namespace, record);
      await note.done();
      throw removedMeanwhile(record.id, error);
    }
    if (failure !== undefined) throw leftStopped(note, failure.error, error);
    // Else the note stays, for the next look at what was cut off.
    if (!failures.some(({ what }) => what === giveDiskUp)) await note.asItWas();
    if (note.hasLostMemory) throw startedAnew(record.id, error);
    throw named(record.id, 'could not be rewound, and is as it was', 'not-rewound', error);
  }
}

/** What is noted of a rewind for those who come after it. */
interface Note extends Disposable {
  /** Which container it is of. */
  readonly id: string;
  /** Whether what ran comes back with its memory. */
  readonly hasMemory: boolean;
  /** Whether a task was ended of which there is no image. */
  readonly hasLostMemory: boolean;
  /** Where the image of the task is being made. */
  readonly stage: string;
  staged(stage: Stage): void;
  /** From here on the task has ended by this rewind. @param memory with its image */
  ended(memory: boolean): void;
  /** Nothing of it needs to be done any more. */
  done(): Promise<void>;
  /** All is as it was found: what an earlier rewind has left is left again. */
  asItWas(): Promise<void>;
}

function openNote(host: Host, { namespace, record, task, place }: Rewinding): Note {
  const before = host.rewinds.of({ namespace, container: record.id });
  const runs = isRunning(task);
  const disk = host.store.findContainer(namespace, record.snapshotKey);
  // Where nothing runs, what an earlier rewind stopped and could not bring back is still what there was.
  const from =
    before !== undefined && !runs
      ? before
      : newNote({ namespace, record, task }, place?.group ?? randomUUID(), disk);
  const open = host.rewinds.open(from);
  if (from !== before && before !== undefined)
    host.later('remove the image of a stopped task', removeStage(before.stage));
  let memory = from.stage !== '';
  let lost = false;
  const done = async (): Promise<void> => {
    open.done();
    await removeStage(open.note.stage);
  };
  return {
    id: record.id,
    get hasMemory() {
      return memory;
    },
    get hasLostMemory() {
      return lost;
    },
    get stage() {
      return open.note.stage;
    },
    staged: (stage) => open.change({ stage: stage.folder }),
    ended: (withMemory) => {
      memory = withMemory;
      lost = !withMemory;
      open.change({ ended: true });
    },
    done,
    asItWas: async () => {
      if (from !== before) await done();
    },
    [Symbol.dispose]: () => open[Symbol.dispose](),
  };
}

/** Where it was to be brought back with others: none of them is brought back as it was before all that was restored is gone. */
async function leaveOthers(
  host: Host,
  { namespace, record, place }: Rewinding,
  error: unknown,
): Promise<void> {
  if (place === undefined) return;
  place.fail(error);
  if (place.isRestored === true)
    await removeTask(host, namespace, record.id).catch((failure: unknown) =>
      host.log.error('a restored task could not be ended', { id: record.id, error: messageOf(failure) }),
    );
  await place.ended();
}

const bringTaskBack = 'bring the stopped task back';
const bringDiskBack = 'go back to the former disk';
const giveDiskUp = 'give up the disk of a rewind that did not begin';
/** Without these the container is not what it was. */
const essential: ReadonlySet<string> = new Set([bringTaskBack, bringDiskBack]);

function leftStopped({ id, hasMemory }: Note, failure: unknown, error: unknown): StasisError {
  const memory = hasMemory ? 'what it had in memory is kept' : 'what it had in memory is lost';
  const text = `container ${id} is stopped, and ${memory}: it was stopped to be rewound, that failed, and it could not be brought back yet`;
  const why = codeOf(error) === Code.Cancelled ? failure : error;
  return new StasisError(codeOf(failure), text, {
    subject: id,
    reason: 'left-stopped',
    cause: why,
    remedy: `see that containerd runs: stasisd tries to bring it back once a minute; to go to a checkpoint instead: stasis restore ${id}`,
  });
}

function startedAnew(id: string, error: unknown): StasisError {
  const text = `container ${id} could not be rewound, and was started anew on its disk, without what it had in memory: ${messageOf(error)}`;
  return new StasisError(codeOf(error), text, {
    subject: id,
    reason: 'started-anew',
    cause: error,
    remedy: `to go to a checkpoint instead: stasis restore ${id}`,
  });
}

async function rewindBy(
  steps: Steps,
  { note, deletion }: { readonly note: Note; readonly deletion: SoleDelete },
  host: Host,
  rewinding: Rewinding,
  report: Report,
): Promise<RewindTimes> {
  const { namespace, record, task, entry, memory, lazy, signal, place } = rewinding;
  const client = host.containerd.namespace(namespace);
  assertSpecFitsHost(decodeSpec(memory.record.container.spec, record.id), record.id, existsSync);
  // Before anything is stopped.
  await Promise.all([
    memory.ready,
    entry.memory === 'image' ? assertRestorable(host, record) : undefined,
    assertAlone(record.id, task),
    entry.disk === 'snapshot' ? assertDisk(host, namespace, record) : undefined,
  ]);

  if (task?.status === Status.PAUSED) report.warn(`${record.id} was paused, and runs when it is restored`);
  const begin = process.hrtime.bigint();
  report.phase('stopping the container');
  const clone = entry.disk === 'snapshot' ? cloneDisk(host, rewinding) : undefined;
  if (clone !== undefined) steps.undo(giveDiskUp, async () => clone.undo());
  const safety = await stop(host, rewinding, note, report);
  if (safety !== undefined) {
    const back = async (): Promise<void> => bringBack(host, rewinding, safety.image);
    steps.undo(bringTaskBack, () => place?.inTurn(back) ?? back());
  }
  if (clone !== undefined) steps.undo(bringDiskBack, async () => clone.undo());
  // What has no image of its memory cannot be brought back as it was: then the only way is on.
  const turnBack = (): void => {
    if (safety === undefined || safety.image !== undefined) signal.throwIfAborted();
  };
  turnBack();
  if (safety !== undefined) note.ended(safety.image !== undefined);
  await removeTask(host, namespace, record.id);
  await deletion.bundleGone();
  const stopped = process.hrtime.bigint();
  await place?.stopped();

  turnBack();
  report.phase('putting the disk back');
  const disk = await putDiskBack(host, client, rewinding, clone, steps, report);
  const placed = process.hrtime.bigint();

  turnBack();
  report.phase('restoring memory');
  const fill = lazy ? host.fills.note(namespace, record.id, entry, memory) : undefined;
  if (fill !== undefined) steps.undo('let the image go', async () => fill.abandon());
  const options = {
    mounts: disk.mounts,
    // Now, as the end of the former task has its client leave.
    io: await ioOf(task, memory.record.terminal),
    imageDir: entry.memory === 'image' ? memory.imageDir : undefined,
    workDir: fill?.folder,
    beforeStart: turnBack,
  };
  const start = async (): Promise<StartedTask> => startTask(client, disk.record, options);
  const started = await (place?.inTurn(start) ?? start());
  if (place !== undefined) place.isRestored = true;
  await assertNotRemoved(client, record);
  await place?.started();
  steps.commit();
  fill?.begun();
  host.later('tidy up after a rewind', Promise.all([disk.done(), note.done()]));
  return { stopNs: Number(stopped - begin), diskNs: Number(placed - stopped), ...started };
}

/** @throws FailedPrecondition where somebody else is in the container's cgroup: no OCI runtime would restore it there */
async function assertAlone(id: string, task: Process | undefined): Promise<void> {
  if (task === undefined || task.pid === 0) return;
  const pids = await findCgroup(task.pid).then(cgroupPids, () => []); // it has ended
  const [stranger] = strangers(pids, task.pid);
  if (stranger === undefined) return;
  throw new FailedPrecondition(
    `process ${stranger} is in the cgroup of container ${id} and not of it: another containerd has a container of that namespace and name perhaps`,
    {
      subject: id,
      reason: 'shared-cgroup',
      remedy: `end that one, or bring the checkpoint back under another name: stasis restore ${id} --as NEW`,
    },
  );
}

/** How often in all the present state is dumped where the shim's worker ends meanwhile, and another one follows it. */
const DUMPS = 3;

/** A running task that was ended. */
interface Stopped {
  /** Folder of its image; undefined where none could be made. */
  readonly image: string | undefined;
}

/**
 * Ends a running task, keeping an image of it on the tmpfs, from which it comes back if the restore fails.
 * Where no such image can be made the task comes back anew on its present disk.
 * @returns undefined where none runs
 * @throws Unavailable, while it still runs, where the shim does not answer, or its worker ends again and again
 */
async function stop(
  host: Host,
  rewinding: Rewinding,
  note: Note,
  report: Report,
): Promise<Stopped | undefined> {
  const { namespace, record, task, signal } = rewinding;
  if (!isRunning(task)) return undefined;
  await allThere(host, { namespace, record, signal }, report);
  const client = host.containerd.namespace(namespace);
  const startTime = startTimeOf(task.pid);
  const cutOff: Stage[] = [];
  for (;;) {
    const listed = pidsOf(client, record.id);
    const found = findEngine(host.config.daemon.run_dir, namespace, record.id);
    for (const begun of [listed, found]) begun.catch(() => undefined); // they are waited for below
    const stage = await openStage(host.staging).catch(async (error: unknown) => {
      (await found.catch(() => undefined))?.close();
      throw error;
    });
    note.staged(stage);
    const engine = await found;
    try {
      const pids = await listed;
      const fits = engine !== undefined && (await fitsInStaging(host.staging, pids));
      return { image: fits ? await dumpAndEnd(host, engine, record.id, stage) : undefined };
    } catch (error) {
      if (isContainerdAway(error) || isShimSilent(error)) throw error; // while nothing is lost yet
      if (isLost(error)) {
        cutOff.push(stage);
        // The worker that follows answers once it has taken back what was begun, or has ended the task where the image was whole.
        await findTask(client, record.id).catch(() => undefined);
      }
      const runs = isAlive(task.pid, startTime);
      if (runs && isLost(error)) {
        signal.throwIfAborted();
        if (cutOff.length < DUMPS) continue;
        throw error;
      }
      const image = runs ? undefined : await firstWhole(cutOff, note);
      if (image === undefined)
        report.warn(
          `the present state of ${record.id} cannot be kept while it is restored: ${messageOf(error)}`,
        );
      return { image };
    } finally {
      engine?.close();
      for (const { folder } of cutOff.filter((other) => other.folder !== note.stage))
        host.later('remove what a dump has left', removeStage(folder));
    }
  }
}

/** The image of a dump that had come to its end, but for its answer. */
async function firstWhole(stages: readonly Stage[], note: Note): Promise<string | undefined> {
  for (const stage of stages) {
    if ((await readImage(stage.imageDir)).missing.length > 0) continue;
    note.staged(stage);
    return stage.imageDir;
  }
  return undefined;
}

/** Whether a shim's answer did not come, as its worker has ended. A shim without a guard has ended then, and its containers with it. */
function isLost(error: unknown): boolean {
  return codeOf(error) === Code.Unavailable && !isContainerdAway(error) && !isShimSilent(error);
}

/** @returns the folder of the image; undefined where none was made */
async function dumpAndEnd(
  host: Host,
  { calls }: Engine,
  id: string,
  stage: Stage,
): Promise<string | undefined> {
  const answer = await calls.checkpoint({
    id,
    imageDir: stage.imageDir,
    workDir: stage.workDir,
    snapshot: '',
    properties: {},
    syncPath: '',
    exit: true,
    requireMemory: true,
    timeoutMs: BigInt(host.config.checkpoint.timeout) * 1000n,
    parentPath: '',
    sessions: SessionPolicy.SESSIONS_LEAVE, // they end with the task, and do not come back with it
  });
  return answer.memory ? stage.imageDir : undefined;
}

/** @throws Unavailable where the shim does not answer */
async function pidsOf(client: NamespaceClient, containerId: string): Promise<number[]> {
  try {
    const { processes } = await client.tasks.listPids({ containerId }, { timeoutMs: LIST_TIMEOUT_MS });
    return processes.map(({ pid }) => pid);
  } catch (error) {
    throw codeOf(error) === Code.DeadlineExceeded ? silentShim(containerId) : error;
  }
}

/** What is still being brought in cannot be dumped; what will not come need not be. */
async function allThere(
  host: Host,
  { namespace, record, signal }: Pick<Rewinding, 'namespace' | 'record' | 'signal'>,
  report: Report,
): Promise<void> {
  try {
    await host.fills.whenFilled(namespace, record.id, report, signal);
  } catch (error) {
    signal.throwIfAborted();
    report.warn(messageOf(error));
  }
}

interface DiskBack {
  readonly mounts: Mount[];
  /** The container's record as it now is. */
  readonly record: Container;
  /** Drops what the former disk alone needed. */
  done(): Promise<void>;
}

/** @throws FailedPrecondition where its snapshot is gone, as after `ctr snapshots rm` */
async function assertDisk(host: Host, namespace: string, record: Container): Promise<void> {
  if (!(await hasDisk(host, namespace, record))) throw noDisk(host, record);
}

function noDisk(host: Host, record: Container): FailedPrecondition {
  return new FailedPrecondition(`container ${record.id} has no disk in ${host.root} to rewind`, {
    subject: record.id,
    reason: 'disk-not-found',
    remedy: `bring the checkpoint back under another name: stasis restore ${record.id} --as NEW`,
  });
}

/** The new disk of a container while it is being made. */
interface DiskClone {
  readonly made: Promise<Rewound>;
  /** Waits for it, where need be, and gives the container its former disk back. Can be called more than once. */
  undo(): Promise<void>;
}

/**
 * Begins to make the disk as it was at the checkpoint. This has nothing to do with what is stopped meanwhile: a container that
 * runs works on in the dataset that it has mounted, and what of a rewind is noted of before it ended the task is undone.
 */
function cloneDisk(host: Host, { namespace, record, entry }: Rewinding): DiskClone {
  const make = async (): Promise<Rewound> => {
    const disk = host.store.findContainer(namespace, record.snapshotKey);
    if (disk === undefined) throw noDisk(host, record);
    return host.store.rewind(disk.name, entry.snapshot);
  };
  const made = make();
  const settled = made.catch(() => undefined); // who waits for it is told
  return { made, undo: async () => (await settled)?.undo() };
}

/** @param clone where the checkpoint has a snapshot of the disk */
async function putDiskBack(
  host: Host,
  client: NamespaceClient,
  { record, entry, memory }: Rewinding,
  clone: DiskClone | undefined,
  steps: Steps,
  report: Report,
): Promise<DiskBack> {
  const former = memory.record.container;
  const sameSpec =
    Buffer.compare(former.spec?.value ?? Buffer.alloc(0), record.spec?.value ?? Buffer.alloc(0)) === 0;
  let target: Container = sameSpec ? record : { ...record, spec: former.spec };
  const layer = entry.disk !== 'snapshot';
  const update = (container: Container): Promise<void> => pointRecord(client, container, record, { layer });
  if (clone !== undefined) {
    const rewound = await clone.made;
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
  const labels = keepingFormerLayer(record);
  target = { ...target, snapshotter: former.snapshotter, snapshotKey: key, labels };
  const snapshotter = former.snapshotter;
  steps.undo('remove the new writable layer', () => removeSnapshot(client, snapshotter, key));
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
    done: () => forgetFormerLayer(client, record),
  };
}
