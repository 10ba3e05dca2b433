import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { breakOffDump, type BreakOff } from '../criu/break-off.ts';
import { makeCgroupYard } from '../criu/cgroup-yard.ts';
import { isAtLeast } from '../criu/find.ts';
import { emptyImage, requireWholeImage } from '../criu/image.ts';
import { describeFailure, lastError } from '../criu/log.ts';
import { endStrayCriu } from '../criu/stray.ts';
import { dumpLines, findPlainTmpfs, recordTmpfs } from '../criu/tmpfs.ts';
import { Cancelled, DeadlineExceeded, FailedPrecondition, messageOf } from '../errors.ts';
import { isOciError } from '../oci/error.ts';
import { cgroupPids } from '../sys/cgroup.ts';
import { isDying } from '../sys/dying.ts';
import { findStopped } from '../sys/wait-channel.ts';
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
  tools: Pick<InstantTools, 'criu' | 'isDying'>,
  { timeoutMs, signal, onStart }: { timeoutMs: number; signal: AbortSignal; onStart?: () => void },
): Promise<void> {
  await assertNoneStopped(target);
  const criuConfig = await writeCriuConfig(target, memory, tools);
  const dying = tools.isDying ?? isDying;
  const ending = new Ending(memory.imageDir, timeoutMs, signal, () => dying(target.pid));
  try {
    await target.runtime.checkpoint({
      ...memory.criu,
      id: target.id,
      imageDir: memory.imageDir,
      workDir: memory.workDir,
      leaveRunning: true,
      timeoutMs: timeoutMs + 2 * graceMs,
      signal: ending.kill,
      ...(onStart === undefined ? {} : { onStart }),
      ...(memory.parentPath === undefined ? {} : { parentPath: memory.parentPath }),
      ...(criuConfig === undefined ? {} : { criuConfig }),
    });
    await requireWholeImage(memory.imageDir);
    if (ending.reason !== undefined) throw new Error('it was whole when it was to end');
  } catch (error) {
    await endStrayCriu([memory.imageDir, memory.workDir]);
    await ending.putBack();
    await emptyImage(memory.imageDir);
    if (ending.reason === 'ended') throw ended(target.id);
    if (ending.reason === 'cancelled' || isOciError(error, 'cancelled')) throw cancelled(target.id);
    if (ending.reason === 'timeout' || isOciError(error, 'timeout')) {
      throw new DeadlineExceeded(`the dump of ${target.id} took longer than ${timeoutMs} ms`, {
        subject: target.id,
        remedy: 'raise checkpoint.timeout in the configuration',
        cause: error,
      });
    }
    const failure = await lastError(join(memory.workDir, 'dump.log'));
    throw new DumpFailure(failure === undefined ? messageOf(error) : describeFailure(failure), error);
  } finally {
    ending.close();
  }
}

type Reason = 'cancelled' | 'timeout' | 'ended';

/** Milliseconds that a dump gets to break off by itself, before its processes are killed. */
const graceMs = 5_000;

/** The same once the container has ended: a CRIU that waits for a process of it may do so for ever. */
const graceAfterEndMs = 1_000;
const WATCH_MS = 50;

/**
 * Ends a dump when its time is up, its caller has gone or its container has ended: gently, and by force where that does
 * not help.
 */
class Ending {
  readonly #imageDir: string;
  readonly #signal: AbortSignal;
  readonly #force = new AbortController();
  readonly #deadline: NodeJS.Timeout;
  readonly #watch: NodeJS.Timeout;
  readonly #leave = (): void => this.#begin('cancelled');
  #grace: NodeJS.Timeout | undefined;
  #breakOff: BreakOff | undefined;
  /** Why the dump is being ended; undefined as long as it is not. */
  reason: Reason | undefined;

  constructor(imageDir: string, timeoutMs: number, signal: AbortSignal, hasEnded: () => boolean) {
    this.#imageDir = imageDir;
    this.#watch = setInterval(() => {
      if (hasEnded()) this.#begin('ended');
    }, WATCH_MS);
    this.#signal = signal;
    this.#deadline = setTimeout(() => this.#begin('timeout'), timeoutMs);
    signal.addEventListener('abort', this.#leave, { once: true });
    if (signal.aborted) this.#leave();
  }

  /** Aborts when waiting has been in vain. */
  get kill(): AbortSignal {
    return this.#force.signal;
  }

  /** Makes the image folder again, where it was taken away. */
  async putBack(): Promise<void> {
    await this.#breakOff?.putBack();
  }

  close(): void {
    clearInterval(this.#watch);
    clearTimeout(this.#deadline);
    clearTimeout(this.#grace);
    this.#signal.removeEventListener('abort', this.#leave);
  }

  #begin(reason: Reason): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.#breakOff = breakOffDump(this.#imageDir);
    const grace = reason === 'ended' ? graceAfterEndMs : graceMs;
    this.#grace = setTimeout(() => this.#force.abort(), grace);
  }
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

function ended(id: string): FailedPrecondition {
  return new FailedPrecondition(`container ${id} ended during its dump`, {
    subject: id,
    reason: 'container-not-running',
  });
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
  const yard = makeCgroupYard(join(memory.workDir, 'cgroups'));
  const [networkLock, tmpfs] = await Promise.all([
    networkLockLines(target.pid),
    memory.ownRestore === true ? tmpfsLines(target.pid, memory.imageDir) : [],
  ]);
  const lines = [...networkLock, ...yard, ...tmpfs, ghostLimit];
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
async function networkLockLines(pid: number): Promise<string[]> {
  return (await hasTcpSockets(pid)) ? [] : ['network-lock skip'];
}

async function tmpfsLines(pid: number, imageDir: string): Promise<string[]> {
  const mounts = await findPlainTmpfs(pid);
  await recordTmpfs(imageDir, mounts);
  return dumpLines(mounts);
}
