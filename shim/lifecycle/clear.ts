import { readFile, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../../src/config/config.ts';
import { endStrayCriu } from '../../src/criu/stray.ts';
import { codeOf, Code, messageOf } from '../../src/errors.ts';
import { removeFill } from '../../src/pages/fill-files.ts';
import { detectRuntime } from '../../src/oci/binary.ts';
import { isOciError } from '../../src/oci/error.ts';
import { openRuntime } from '../../src/oci/runtime.ts';
import { DeleteResponse, TaskDefinition } from '../../src/proto/gen/containerd/task.ts';
import { cgroupAt, cgroupPids, findCgroup, type Cgroup } from '../../src/sys/cgroup.ts';
import { killCgroup, removeCgroup } from '../../src/sys/cgroup-remove.ts';
import { wallTime } from '../../src/sys/clock.ts';
import { exec } from '../../src/sys/command.ts';
import { ownProcesses } from '../../src/sys/own-processes.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import { endProcessesAt } from '../../src/sys/process-tree.ts';
import { Client } from '../../ttrpc/index.ts';
import type { ShimArguments } from '../arguments.ts';
import { readRecord, type TaskRecord } from '../container/record.ts';
import { unmountBelow, unmountRootfs } from '../container/rootfs.ts';
import { cgroupOf, readSpec } from '../container/spec.ts';
import { Paths } from '../paths.ts';
import { criuFolder } from '../process/restore.ts';

const SIGKILL = 9;
const RPC_TIMEOUT_MS = 3000;

/**
 * The action `delete`: containerd lost the connection to the task's shim, and wants nothing to be left of the task. Safe
 * to repeat. Prints a DeleteResponse.
 */
export async function clear(args: ShimArguments, config: Config): Promise<void> {
  const folder = new Paths(config.daemon.run_dir).task(args.namespace, args.id);
  const record = await readRecord(folder);
  const answered = await byShim(folder, args.id);
  if (answered === undefined && record !== undefined) {
    await endRuntimes(record.bundle);
    await clearAway(record);
    await endFill(record);
  }
  if (args.bundle !== '') {
    await unmountRootfs(join(args.bundle, 'rootfs'));
    await unmountBelow(criuFolder(args.bundle));
  }
  await rm(folder, { recursive: true, force: true });
  const response = answered ?? {
    pid: record?.pid ?? 0,
    exitStatus: record?.exit?.status ?? 128 + SIGKILL,
    exitedAt:
      record?.exit === undefined
        ? wallTime()
        : { seconds: BigInt(record.exit.seconds), nanos: record.exit.nanos },
  };
  process.stdout.write(DeleteResponse.encode(response).finish());
}

/** The shim is alive after all: it ends and deletes the task itself, so that its own books stay right. */
async function byShim(folder: string, id: string): Promise<DeleteResponse | undefined> {
  const address = await readFile(join(folder, 'address'), 'utf8').catch(() => '');
  if (address === '') return undefined;
  const limits = { timeout: RPC_TIMEOUT_MS };
  try {
    const client = await Client.connect(address, { signal: AbortSignal.timeout(RPC_TIMEOUT_MS) });
    try {
      const tasks = client.service(TaskDefinition);
      await tasks.kill({ id, execId: '', signal: SIGKILL, all: true }, limits).catch((error: unknown) => {
        if (codeOf(error) !== Code.NotFound) throw error;
      });
      await tasks.wait({ id, execId: '' }, limits);
      return await tasks.delete({ id, execId: '' }, limits);
    } finally {
      client.close();
    }
  } catch {
    return undefined;
  }
}

/**
 * Ends the OCI runtimes that the shim had at work in the bundle, with their CRIU and what that has restored so far; takes
 * away what CRIU had mounted for itself. First of all: with any of them alive, the root file system would stay in use.
 */
async function endRuntimes(bundle: string): Promise<void> {
  await endProcessesAt(bundle);
  const work = await realpath(join(bundle, 'work')).catch(() => undefined);
  if (work === undefined) return;
  await endStrayCriu([work]);
  await unmountBelow(work);
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
  return ownProcesses(pids, init).length < pids.length;
}

/** Processes, runtime state, cgroup and mounts of a task whose shim is gone. */
async function clearAway(record: TaskRecord): Promise<void> {
  const cgroup = await cgroupOfTask(record);
  // First: what a shim left frozen, in the middle of a checkpoint, is not ended by every runtime's delete.
  const isShared = cgroup !== undefined && record.pid !== 0 && (await holdsOthers(cgroup, record.pid));
  if (cgroup !== undefined) await killCgroup(cgroup, record.pid || undefined).catch(() => undefined);
  try {
    const binary = await detectRuntime(exec, record.runtime.path);
    const runtime = openRuntime({ exec, binary, bundle: record.bundle, ...record.runtime });
    await runtime.delete(record.id, { force: true });
  } catch (error) {
    if (!isOciError(error, 'not-found')) process.stderr.write(`delete ${record.id}: ${messageOf(error)}\n`);
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
