import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../../src/config/config.ts';
import { codeOf, Code, messageOf } from '../../src/errors.ts';
import { detectRuntime } from '../../src/oci/binary.ts';
import { isOciError } from '../../src/oci/error.ts';
import { openRuntime } from '../../src/oci/runtime.ts';
import { DeleteResponse, TaskDefinition } from '../../src/proto/gen/containerd/task.ts';
import { findCgroup, type Cgroup } from '../../src/sys/cgroup.ts';
import { killCgroup, removeCgroup } from '../../src/sys/cgroup-remove.ts';
import { wallTime } from '../../src/sys/clock.ts';
import { exec } from '../../src/sys/command.ts';
import { Client } from '../../ttrpc/index.ts';
import type { ShimArguments } from '../arguments.ts';
import { readRecord, startTimeOf, type TaskRecord } from '../container/record.ts';
import { unmountBelow, unmountRootfs } from '../container/rootfs.ts';
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
  if (answered === undefined && record !== undefined) await clearAway(record);
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

/** Processes, runtime state, cgroup and mounts of a task whose shim is gone. */
async function clearAway(record: TaskRecord): Promise<void> {
  const alive = record.pid !== 0 && record.startTime !== '' && startTimeOf(record.pid) === record.startTime;
  const cgroup: Cgroup | undefined = alive ? await findCgroup(record.pid).catch(() => undefined) : undefined;
  // First: what a shim left frozen, in the middle of a checkpoint, is not ended by every runtime's delete.
  if (cgroup !== undefined) await killCgroup(cgroup).catch(() => undefined);
  try {
    const binary = await detectRuntime(exec, record.runtime.path);
    const runtime = openRuntime({ exec, binary, bundle: record.bundle, ...record.runtime });
    await runtime.delete(record.id, { force: true });
  } catch (error) {
    if (!isOciError(error, 'not-found')) process.stderr.write(`delete ${record.id}: ${messageOf(error)}\n`);
  }
  if (cgroup !== undefined) await removeCgroup(cgroup);
  await unmountRootfs(join(record.bundle, 'rootfs'));
}
