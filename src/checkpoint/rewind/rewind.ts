// A restore in place: the task that runs is stopped, its disk put back, and the checkpoint's memory restored.
import { existsSync } from 'node:fs';
import { untilBack } from '../../containerd/away.ts';
import { Code, codeOf, FailedPrecondition, messageOf, StasisError } from '../../errors.ts';
import { type Process, Status } from '../../proto/gen/containerd/task_types.ts';
import { bringBack } from './bring-back.ts';
import { cgroupPids, findCgroup } from '../../sys/cgroup.ts';
import { strangers } from '../../sys/own-processes.ts';
import type { Host, Report } from '../host.ts';
import { named } from '../named.ts';
import { assertRestorable } from '../runtime-choice.ts';
import { assertSpecFitsHost, decodeSpec } from '../spec.ts';
import { assertNotRemoved, isRemoved, removedMeanwhile, removeOrphan } from '../removed.ts';
import { ioOf, type StartedTask, startTask } from '../start.ts';
import { expectSoleDelete, type SoleDelete } from './sole-delete.ts';
import { Steps } from '../steps.ts';
import { removeTask } from '../task.ts';
import { openNote, type Note } from './note.ts';
import type { Rewinding, RewindTimes } from './rewinding.ts';
import { stop } from './stop.ts';
import { assertDisk, cloneDisk, putDiskBack } from './disk.ts';

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
