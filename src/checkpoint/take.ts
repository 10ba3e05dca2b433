import { Code, codeOf, FailedPrecondition } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import type { InstantResponse } from '../proto/gen/stasis/engine.ts';
import { syncfs } from '../sys/syncfs.ts';
import { beginTaking, identityOf, nameSnapshot, notDumped, openDisk } from './begin.ts';
import { type CheckpointEntry, diskProperties } from './entry.ts';
import { takeOfForeignDisk } from './foreign.ts';
import { type Host, lockKey, type Report, snapshotterName } from './host.ts';
import { destroyLateHalf } from './late-half.ts';
import { isSandbox } from './members.ts';
import { assertCanPrecopy, mergePrecopied, precopy } from './precopy.ts';
import {
  defaultCheckpointName,
  validateCheckpointName,
  validateContainerId,
  validateNamespace,
} from './names.ts';
import { takeUnchanged } from './unchanged.ts';
import { Steps } from './steps.ts';
import {
  dump,
  entryOf,
  type InstantOptions,
  memoryRequired,
  notOurRuntime,
  storeMemory,
  type TakeRequest,
  type Taking,
} from './taking.ts';
import { endTask, withPausedTask } from './task.ts';

/**
 * Takes a checkpoint: memory and disk of one instant. A failure leaves the container as it was, and nothing
 * in the pool.
 * @throws NotFound, AlreadyExists, InvalidArgument, IsPod, FailedPrecondition (not running; memory required and not
 *   to be had; no tracking of changes for `precopy`), ResourceExhausted (pool full), Unavailable
 */
export async function takeCheckpoint(
  host: Host,
  request: TakeRequest,
  report: Report,
): Promise<CheckpointEntry> {
  validateNamespace(request.namespace);
  validateContainerId(request.container);
  if (request.name !== '') validateCheckpointName(request.name);
  await assertCanPrecopy(host, request);
  return host.locks.run(
    lockKey(request.namespace, request.container),
    () => takeLocked(host, request, report, assertNoPod),
    request.signal,
  );
}

/** A container that stands for several. */
export class IsPod extends FailedPrecondition {}

function assertNoPod(record: Container): void {
  if (!isSandbox(record)) return;
  throw new IsPod(`${record.id} is a sandbox, whose pod is one with it`, { subject: record.id });
}

/** As takeCheckpoint, for a caller that holds the container's lock. `look` may refuse the container when it is found. */
export async function takeLocked(
  host: Host,
  request: TakeRequest,
  report: Report,
  look: (record: Container) => void = () => undefined,
): Promise<CheckpointEntry> {
  const { namespace, container } = request;
  const begun = await beginTaking(host, request, report, () => {
    const taken = (name: string): boolean => host.catalog.has(namespace, container, name);
    const name = request.name !== '' ? request.name : defaultCheckpointName(new Date(), taken);
    host.catalog.assertFree(namespace, container, name);
    return name;
  });
  try {
    const { taking } = begun;
    look(taking.record);
    const unchanged = await takeUnchanged(host, taking);
    if (unchanged !== undefined) return unchanged;
    const judged = begun.judge();
    const entry =
      taking.record.snapshotter === snapshotterName
        ? await takeOfOwnDisk(host, taking, judged)
        : await takeOfForeignDisk(host, await judged);
    host.catalog.add(entry);
    host.storing.forget(namespace, container);
    if (entry.memoryError !== '') report.warn(`memory was not dumped: ${entry.memoryError}`);
    return entry;
  } finally {
    begun.close();
  }
}

async function takeOfOwnDisk(host: Host, asked: Taking, judged: Promise<Taking>): Promise<CheckpointEntry> {
  await using steps = new Steps(host.log);
  const disk = await openDisk(host, asked);
  const { pool, stage } = disk;
  steps.undo('remove the staging folder', () => stage.remove());
  const taking = await judged;
  const { request } = taking;
  const { leaf, snapshot } = nameSnapshot(host, disk.dataset, taking.name);
  const properties = diskProperties(identityOf(taking));
  const ours = { made: true };
  steps.undo('destroy the disk snapshot', async () => {
    if (ours.made) await host.zfs.destroyIdempotent(snapshot);
  });

  const finish = async (instant: InstantResponse): Promise<CheckpointEntry> => {
    request.atInstant?.([entryOf(taking, { dataset: disk.dataset, snapshot, instant }, 0)]);
    const entry = await storeMemory(host, taking, { dataset: disk.dataset, snapshot, pool, stage, instant });
    steps.commit();
    return entry;
  };
  const precopied = await precopy(host, taking, stage); // before it is paused to be ended
  request.signal.throwIfAborted();
  taking.report.phase(
    request.diskOnly ? 'snapshotting the disk' : 'freezing, dumping memory and snapshotting the disk',
  );
  const instant = async (): Promise<InstantResponse> => {
    try {
      const options = { snapshot, properties, syncPath: disk.rootfs, stage, precopied };
      const taken = await takeInstant(host, taking, options);
      return await mergePrecopied(host, taking, stage, precopied, taken);
    } catch (error) {
      ours.made = codeOf(error) !== Code.AlreadyExists; // somebody else's, made by hand
      if (codeOf(error) === Code.Unavailable) {
        const key = lockKey(request.namespace, request.container); // which is held until this has failed
        const late = destroyLateHalf(host, { snapshot, id: taking.id, key });
        host.later('destroy the disk half of a checkpoint whose shim ended', late);
      }
      throw error;
    }
  };
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
      // What does not run cannot stand still.
      frozenNs: task?.status === Status.RUNNING || task?.status === Status.PAUSED ? end - begin : 0n,
    };
  };
  if (task?.status === Status.RUNNING) {
    return withPausedTask(host, request.namespace, request.container, snapshotNow);
  }
  return snapshotNow();
}
