import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeCgroupYard } from '../criu/cgroup-yard.ts';
import { isAtLeast } from '../criu/find.ts';
import { emptyImage, requireWholeImage } from '../criu/image.ts';
import { describeFailure, lastError } from '../criu/log.ts';
import { endStrayCriu } from '../criu/stray.ts';
import { dumpLines, findEmptyTmpfs, recordTmpfs } from '../criu/tmpfs.ts';
import { Cancelled, DeadlineExceeded, messageOf } from '../errors.ts';
import { isOciError } from '../oci/error.ts';
import { hasTcpSockets } from '../sys/tcp-sockets.ts';
import type { InstantTarget, InstantTools, MemoryPlan } from './instant-plan.ts';

/** A dump that failed for a reason of the container's or of CRIU's; the disk may still be kept. */
export class DumpFailure extends Error {
  /** @param reason CRIU's own words, where it left any */
  constructor(reason: string, cause: unknown) {
    super(reason, { cause });
    this.name = 'DumpFailure';
  }
}

/**
 * Dumps the memory of a frozen container and leaves it running, or as it was found.
 * @throws DumpFailure with CRIU's reason, the image folder empty; Cancelled; DeadlineExceeded. No CRIU is left at work
 */
export async function dumpMemory(
  target: InstantTarget,
  memory: MemoryPlan,
  tools: Pick<InstantTools, 'criu'>,
  { timeoutMs, signal, onStart }: { timeoutMs: number; signal: AbortSignal; onStart?: () => void },
): Promise<void> {
  const criuConfig = await writeCriuConfig(target, memory, tools);
  try {
    await target.runtime.checkpoint({
      ...memory.criu,
      id: target.id,
      imageDir: memory.imageDir,
      workDir: memory.workDir,
      leaveRunning: true,
      timeoutMs,
      signal,
      ...(onStart === undefined ? {} : { onStart }),
      ...(memory.parentPath === undefined ? {} : { parentPath: memory.parentPath }),
      ...(criuConfig === undefined ? {} : { criuConfig }),
    });
    await requireWholeImage(memory.imageDir);
  } catch (error) {
    await endStrayCriu([memory.imageDir, memory.workDir]);
    await emptyImage(memory.imageDir);
    if (isOciError(error, 'cancelled')) throw cancelled(target.id);
    if (isOciError(error, 'timeout')) {
      throw new DeadlineExceeded(`the dump of ${target.id} took longer than ${timeoutMs} ms`, {
        subject: target.id,
        remedy: 'raise checkpoint.timeout in the configuration',
        cause: error,
      });
    }
    const failure = await lastError(join(memory.workDir, 'dump.log'));
    throw new DumpFailure(failure === undefined ? messageOf(error) : describeFailure(failure), error);
  }
}

export function cancelled(id: string): Cancelled {
  return new Cancelled(`the caller went away, so the checkpoint of ${id} was undone`, { subject: id });
}

/** What CRIU is told beyond the runtimes' flags, as a file; undefined where that is nothing. */
async function writeCriuConfig(
  target: InstantTarget,
  memory: MemoryPlan,
  tools: Pick<InstantTools, 'criu'>,
): Promise<string | undefined> {
  const version = (await tools.criu?.get().catch(() => undefined))?.version;
  if (version === undefined || !isAtLeast(version, 3, 19)) return undefined;
  const [networkLock, yard, tmpfs] = await Promise.all([
    networkLockLines(target.pid),
    makeCgroupYard(join(memory.workDir, 'cgroups')),
    memory.ownRestore === true ? tmpfsLines(target.pid, memory.imageDir) : [],
  ]);
  const lines = [...networkLock, ...yard, ...tmpfs];
  if (lines.length === 0) return undefined;
  const file = join(memory.workDir, 'criu.conf');
  await writeFile(file, `${lines.join('\n')}\n`, { mode: 0o600 });
  return file;
}

/**
 * CRIU keeps packets from reaching a container during its dump: eight processes of iptables, a sixth of a small
 * container's dump. A container whose network namespace has no TCP socket at all has nothing that a packet could change;
 * frozen, it cannot open one. The image notes it, so the restore follows (criu/image.c).
 */
async function networkLockLines(pid: number): Promise<string[]> {
  return (await hasTcpSockets(pid)) ? [] : ['network-lock skip'];
}

async function tmpfsLines(pid: number, imageDir: string): Promise<string[]> {
  const mounts = await findEmptyTmpfs(pid);
  await recordTmpfs(imageDir, mounts);
  return dumpLines(mounts);
}
