import { realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { endStrayCriu } from '../../src/criu/stray.ts';
import { messageOf } from '../../src/errors.ts';
import { removeFill } from '../../src/pages/fill-files.ts';
import { detectRuntime } from '../../src/oci/binary.ts';
import { isOciError } from '../../src/oci/error.ts';
import { openRuntime } from '../../src/oci/runtime.ts';
import { cgroupAt, cgroupPids, findCgroup, type Cgroup } from '../../src/sys/cgroup.ts';
import { killCgroup, removeCgroup } from '../../src/sys/cgroup-remove.ts';
import type { Exec } from '../../src/sys/command.ts';
import { strangers } from '../../src/sys/own-processes.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import { endProcessesAt } from '../../src/sys/process-tree.ts';
import type { TaskRecord } from '../container/record.ts';
import { removeMountPoints, unmountBelow, unmountRootfs } from '../container/rootfs.ts';
import { cgroupOf, readSpec } from '../container/spec.ts';
import { criuFolder } from '../process/restore.ts';

/**
 * Takes away all that is left of a task whose shim is dead: processes, the OCI runtime's state, cgroup and mounts. Safe to repeat.
 * @param warn is told what the OCI runtime could not do, where the rest went on
 * @throws what keeps processes, the cgroup or a mount from going
 */
export async function clearTask(record: TaskRecord, exec: Exec, warn: (text: string) => void): Promise<void> {
  await endRuntimes(record.bundle);
  await clearAway(record, exec, warn);
  await endFill(record);
  await unmountBelow(criuFolder(record.bundle));
  await removeMountPoints(join(record.bundle, 'rootfs'), record.rootfs);
}

/**
 * Ends the OCI runtimes that the shim had at work in the bundle, with their CRIU and what that has restored so far; takes
 * away what CRIU had mounted for itself. First of all: with any of them alive, the root file system would stay in use.
 */
async function endRuntimes(bundle: string): Promise<void> {
  await endProcessesAt(bundle, { isSpared: isDelete });
  const work = await realpath(join(bundle, 'work')).catch(() => undefined);
  if (work === undefined) return;
  await endStrayCriu([work]);
  await unmountBelow(work);
}

/** containerd starts those in the bundle too, one for each task of the dead shim, and they wait for us. */
export function isDelete(args: readonly string[]): boolean {
  return args.at(-1) === 'delete' && args.includes('-publish-binary');
}

/** The page server, where memory was still being brought in; only now, as tasks that it does not serve must not run on. */
async function endFill({ fill }: TaskRecord): Promise<void> {
  if (fill === undefined || fill === '') return;
  await endStrayCriu([fill]);
  removeFill(fill);
}

/** Whether somebody else's processes are in a container's cgroup: src/sys/own-processes.ts. */
async function holdsOthers(cgroup: Cgroup, init: number): Promise<boolean> {
  const pids = await cgroupPids(cgroup);
  return strangers(pids, init).length > 0;
}

/** Processes, runtime state, cgroup and mounts of a task whose shim is gone. */
async function clearAway(record: TaskRecord, exec: Exec, warn: (text: string) => void): Promise<void> {
  const cgroup = await cgroupOfTask(record);
  // First: what a shim left frozen, in the middle of a checkpoint, is not ended by every runtime's delete.
  const isShared = cgroup !== undefined && record.pid !== 0 && (await holdsOthers(cgroup, record.pid));
  if (cgroup !== undefined) await killCgroup(cgroup, record.pid || undefined).catch(() => undefined);
  try {
    const binary = await detectRuntime(exec, record.runtime.path);
    const runtime = openRuntime({ exec, binary, bundle: record.bundle, ...record.runtime });
    await runtime.delete(record.id, { force: true });
  } catch (error) {
    if (!isOciError(error, 'not-found')) warn(`delete ${record.id}: ${messageOf(error)}`);
  }
  await removeRuntimeFolder(join(record.runtime.root, record.id));
  if (cgroup !== undefined && !isShared) await removeCgroup(cgroup);
  await unmountRootfs(join(record.bundle, 'rootfs'));
}

/**
 * A runtime that was killed in the middle of a restore leaves a folder that its own `delete` does not know, with the root
 * file system mounted inside (runc: `criu-root`). Never removed with something mounted in it: those are the container's files.
 */
async function removeRuntimeFolder(folder: string): Promise<void> {
  await unmountBelow(folder);
  await rm(folder, { recursive: true, force: true });
}

/** Of a task whose process is known by it; of one that had none yet, a restore may have made it. */
async function cgroupOfTask({ bundle, pid, startTime }: TaskRecord): Promise<Cgroup | undefined> {
  if (pid === 0) {
    const path = cgroupPathOf(bundle);
    return path === undefined ? undefined : cgroupAt(path);
  }
  const alive = startTime !== '' && startTimeOf(pid) === startTime;
  return alive ? findCgroup(pid).catch(() => undefined) : undefined;
}

function cgroupPathOf(bundle: string): string | undefined {
  try {
    return cgroupOf(readSpec(bundle).cgroupsPath);
  } catch {
    return undefined; // containerd has taken the bundle away
  }
}
