import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeCgroupYard } from '../criu/cgroup-yard.ts';
import { isAtLeast } from '../criu/find.ts';
import { requireWholeImage } from '../criu/image.ts';
import { dumpLines, findPlainTmpfs, recordTmpfs } from '../criu/tmpfs.ts';
import { cgroupPids } from '../sys/cgroup.ts';
import { findStopped } from '../sys/wait-channel.ts';
import { hasTcpSockets } from '../sys/tcp-sockets.ts';
import { DumpFailure, endedInTime } from './ending.ts';
import type { InstantTarget, InstantTools, MemoryPlan } from './instant-plan.ts';

/**
 * Dumps the memory of a frozen container and leaves it running, or as it was found.
 * @throws DumpFailure with CRIU's reason, the image folder empty; Cancelled; DeadlineExceeded. No CRIU is left at work
 */
export async function dumpMemory(
  target: InstantTarget,
  memory: MemoryPlan,
  tools: Pick<InstantTools, 'criu' | 'isDying'>,
  { timeoutMs, signal, onStart }: { timeoutMs: number; signal: AbortSignal; onStart?: () => void },
): Promise<void> {
  await assertNoneStopped(target);
  const networkIdle = !(await hasTcpSockets(target.pid));
  const criuConfig = await writeCriuConfig(target, memory, tools, networkIdle);
  const { imageDir, workDir } = memory;
  await endedInTime(
    target,
    { ...{ what: 'dump', imageDir, workDir, log: 'dump.log' }, timeoutMs, signal },
    tools,
    async (limits) => {
      await target.runtime.checkpoint({
        ...memory.criu,
        ...{ ...limits, id: target.id, imageDir, workDir, leaveRunning: true },
        ...(onStart === undefined ? {} : { onStart }),
        ...(memory.parentPath === undefined ? {} : { parentPath: memory.parentPath }),
        ...(criuConfig === undefined ? {} : { criuConfig, networkIdle }),
      });
      await requireWholeImage(imageDir);
    },
  );
}

/**
 * On cgroup v1 CRIU would wait for such a process until its deadline: the kernel lets a tracer of a stopped task wait until
 * that has moved (ptrace_attach, JOBCTL_TRAPPING), and a frozen one does not.
 */
async function assertNoneStopped({ cgroup }: InstantTarget): Promise<void> {
  if (cgroup.version !== 1) return;
  const pid = findStopped(await cgroupPids(cgroup));
  if (pid === undefined) return;
  const what = `process ${pid} was stopped by a signal, and CRIU cannot seize it while cgroup v1 freezes it`;
  throw new DumpFailure(what, undefined);
}

/** What CRIU is told beyond the runtimes' flags, as a file; undefined where that is nothing. */
async function writeCriuConfig(
  target: InstantTarget,
  memory: MemoryPlan,
  tools: Pick<InstantTools, 'criu'>,
  networkIdle: boolean,
): Promise<string | undefined> {
  const version = (await tools.criu?.get().catch(() => undefined))?.version;
  if (version === undefined || !isAtLeast(version, 3, 19)) return undefined;
  const [yard, tmpfs] = await Promise.all([
    makeCgroupYard(join(memory.workDir, 'cgroups')),
    memory.ownRestore === true ? tmpfsLines(target.pid, memory.imageDir) : [],
  ]);
  const lines = [...(networkIdle ? [noNetworkLock] : []), ...yard, ...tmpfs, ghostLimit];
  const file = join(memory.workDir, 'criu.conf');
  await writeFile(file, `${lines.join('\n')}\n`, { mode: 0o600 });
  return file;
}

/** Files that are open and removed are in the image alone. CRIU keeps 1 MiB of each unless told; it counts in 32 bits. */
const ghostLimit = 'ghost-limit 4095M';

/**
 * CRIU keeps packets from reaching a container during its dump: eight processes of iptables, a sixth of a small
 * container's dump. A container whose network namespace has no TCP socket at all has nothing that a packet could change;
 * frozen, it cannot open one. The image notes it, so the restore follows (criu/image.c).
 */
const noNetworkLock = 'network-lock skip';

async function tmpfsLines(pid: number, imageDir: string): Promise<string[]> {
  const mounts = await findPlainTmpfs(pid);
  await recordTmpfs(imageDir, mounts);
  return dumpLines(mounts);
}
