// Rewinds that were cut off: by the death of a stasisd, or of a containerd that did not come back in time.
import { setTimeout as sleep } from 'node:timers/promises';
import { findContainer, findTask } from '../../containerd/client.ts';
import { readImage } from '../../criu/image.ts';
import type { Container } from '../../proto/gen/containerd/containers.ts';
import { Status } from '../../proto/gen/containerd/task_types.ts';
import { isAlive } from '../../sys/process.ts';
import { bringBack, type FormerTask } from './bring-back.ts';
import { forgetFormerLayer, keepsFormerLayer, pointRecord } from './former-record.ts';
import { removeSnapshot } from '../gone-already.ts';
import { type Host, lockKey } from '../host.ts';
import type { LeftNote } from '../notes.ts';
import { isRemoved, removeOrphan } from '../removed.ts';
import { formerOf, isRunning, type RewindNote } from './notes.ts';
import { imageOfStage, removeStage } from '../staging.ts';
import { removeTask } from '../task.ts';

/** A shim whose caller has gone undoes its dump at once, unless a CRIU hangs. */
const DUMP_TIMEOUT_MS = 10_000;
const DUMP_POLL_MS = 20;

/** How a container is found whose rewind was cut off. */
type Found =
  /** There is nothing to do: it was not stopped, or ended by itself, or is not there any more. */
  | 'left'
  /** What was restored runs, or something that somebody has started since. */
  | 'runs'
  /** Nothing runs. */
  | 'stopped';

interface Cut {
  readonly left: LeftNote<RewindNote>;
  readonly former: FormerTask;
  readonly found: Found;
}

/**
 * Finishes each rewind that was cut off: where what it restored runs, that stays; else the container goes back to the disk that
 * it had and to the task that was stopped, with its memory. Those that were rewound as one stay as one, or go back as one. Each
 * is under its lock from the call on.
 * @param left what `host.rewinds.left()` answered
 * @throws what keeps one from going back; then its note stays, for the next time
 */
export async function finishRewinds(host: Host, left: readonly LeftNote<RewindNote>[]): Promise<void> {
  const groups = Map.groupBy(left, ({ note }) => note.group);
  const results = await Promise.allSettled(
    [...groups.values()].map((group) => {
      const keys = group.map(({ note }) => lockKey(note.namespace, note.container));
      return host.locks.run(keys, () => finishGroup(host, group));
    }),
  );
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

async function finishGroup(host: Host, group: readonly LeftNote<RewindNote>[]): Promise<void> {
  const still = group.filter((left) => left.still());
  if (still.length === 0) return;
  await host.identify();
  const cut = await Promise.all(still.map((left) => look(host, left)));
  for (const { left, found } of cut) {
    if (found !== 'left') continue;
    // Its new disk was begun beside the end of the task.
    await host.store.undoRewind(left.note.disk.name, left.note.disk.dataset);
    await drop(host, left);
  }
  const touched = cut.filter(({ found }) => found !== 'left');
  if (touched.every(({ found }) => found === 'runs')) {
    for (const one of touched) await goOn(host, one);
    return;
  }
  // None is brought back before all that was restored has ended: they may share a pid namespace, and so numbers.
  for (const { former } of touched) await removeRestored(host, former);
  for (const one of touched) await goBack(host, one);
}

async function look(host: Host, left: LeftNote<RewindNote>): Promise<Cut> {
  const { note } = left;
  const former = formerOf(note);
  const { namespace, record, task } = former;
  const client = host.containerd.namespace(namespace);
  const found = async (): Promise<Found> => {
    if (await isRemoved(client, record)) {
      await removeOrphan(host, namespace, record);
      return 'left';
    }
    const image = await settled(note, task?.pid ?? 0);
    if (task !== undefined && isAlive(task.pid, note.startTime)) return 'left';
    const now = await findTask(client, record.id);
    const runs = now?.status === Status.RUNNING || now?.status === Status.PAUSED;
    if (!note.ended && image === undefined) return runs && now.pid !== task?.pid ? 'runs' : 'left';
    const isOver = image !== undefined && !note.ended; // containerd may call the former one running for a moment yet
    return !isOver && runs ? 'runs' : 'stopped';
  };
  return { left, former, found: await found() };
}

/**
 * Waits until the shim has come to an end with the image of the task, which it ends with it: the image is whole then and the
 * process gone, or the folder is empty and the process runs.
 * @returns the folder of the image; undefined where there is none
 */
async function settled({ stage, startTime }: RewindNote, pid: number): Promise<string | undefined> {
  if (stage === '') return undefined;
  const folder = imageOfStage(stage);
  const deadline = performance.now() + DUMP_TIMEOUT_MS;
  for (;;) {
    const image = await readImage(folder);
    if (image.files.length === 0) return undefined;
    if (!isAlive(pid, startTime)) return image.missing.length === 0 ? folder : undefined;
    if (performance.now() >= deadline) return undefined; // it goes with the note, and so the dump breaks off
    await sleep(DUMP_POLL_MS);
  }
}

async function removeRestored(host: Host, { namespace, record, task }: FormerTask): Promise<void> {
  const now = await findTask(host.containerd.namespace(namespace), record.id);
  if (now?.status === Status.STOPPED && now.pid === task?.pid) return; // it is the former one yet
  await removeTask(host, namespace, record.id);
  host.fills.forget(namespace, record.id);
}

/** What was restored stays. */
async function goOn(host: Host, { left, former }: Cut): Promise<void> {
  const { namespace, record } = former;
  const client = host.containerd.namespace(namespace);
  const now = await findContainer(client, record.id);
  if (now !== undefined && keepsFormerLayer(now)) await forgetFormerLayer(client, record);
  host.log.warn('a restore that was cut off was done', { namespace, container: record.id });
  await drop(host, left);
}

/** Disk, record and task as they were. */
async function goBack(host: Host, { left, former }: Cut): Promise<void> {
  const { note } = left;
  const { namespace, record, task } = former;
  const client = host.containerd.namespace(namespace);
  await host.store.undoRewind(note.disk.name, note.disk.dataset);
  const now = await findContainer(client, record.id);
  if (now !== undefined && differs(now, record)) {
    const layer = now.snapshotKey !== record.snapshotKey;
    await pointRecord(client, record, record, { layer });
    if (layer) await removeSnapshot(client, now.snapshotter, now.snapshotKey);
  }
  const image = await wholeImage(note);
  if (isRunning(task)) await bringBack(host, former, image);
  host.log.warn('brought back what ran before a restore that was cut off', {
    ...{ namespace, container: record.id, memory: image !== undefined },
  });
  await drop(host, left);
}

async function wholeImage({ stage }: RewindNote): Promise<string | undefined> {
  if (stage === '') return undefined;
  const folder = imageOfStage(stage);
  return (await readImage(folder)).missing.length === 0 ? folder : undefined;
}

function differs(now: Container, record: Container): boolean {
  const bytes = ({ spec }: Container): Uint8Array => spec?.value ?? Buffer.alloc(0);
  return now.snapshotKey !== record.snapshotKey || Buffer.compare(bytes(now), bytes(record)) !== 0;
}

async function drop(host: Host, left: LeftNote<RewindNote>): Promise<void> {
  host.store.releaseGeneration(left.note.disk.dataset);
  await left.done();
  await removeStage(left.note.stage);
}
