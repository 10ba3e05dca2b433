// One frozen instant: memory and disk of a container, taken while it stands still.
import { join } from 'node:path';
import { describeFailure, lastError } from '../criu/log.ts';
import { emptyImage, guardImage, prepareImage, readImage, requireWholeImage } from '../criu/image.ts';
import { endStrayCriu } from '../criu/stray.ts';
import {
  Aborted,
  AlreadyExists,
  Cancelled,
  DeadlineExceeded,
  FailedPrecondition,
  messageOf,
} from '../errors.ts';
import { silent, type Logger } from '../log.ts';
import { isOciError } from '../oci/error.ts';
import type { CriuOptions, OciRuntime } from '../oci/types.ts';
import { cgroupPids, type Cgroup } from '../sys/cgroup.ts';
import { freezerOf, type Freezer } from '../sys/cgroup-freezer.ts';
import { killCgroup } from '../sys/cgroup-remove.ts';
import { syncfs } from '../sys/syncfs.ts';
import type { Zfs } from '../zfs/zfs.ts';
import { UndoStack } from './undo.ts';

/** The container, as the shim knows it. */
export interface InstantTarget {
  /** Id by which the OCI runtime knows it. */
  readonly id: string;
  /** Its init process, as the host numbers it. */
  readonly pid: number;
  readonly cgroup: Cgroup;
  readonly runtime: Pick<OciRuntime, 'checkpoint'>;
}

export interface MemoryPlan {
  /** Empty folder, or one that does not exist yet. */
  readonly imageDir: string;
  /** Where CRIU writes its log; must exist. */
  readonly workDir: string;
  readonly criu: CriuOptions;
  /** Image folder of the previous dump, relative to `imageDir`. */
  readonly parentPath?: string;
  /** Fail when memory cannot be dumped; otherwise the disk alone is kept. Without a disk it is always required. */
  readonly required: boolean;
}

export interface DiskPlan {
  /** `dataset@name` */
  readonly snapshot: string;
  readonly properties: Readonly<Record<string, string>>;
  /** A folder on the file system to be snapshotted. */
  readonly syncPath: string;
}

export interface InstantPlan {
  readonly memory?: MemoryPlan;
  readonly disk?: DiskPlan;
  /** End the container instead of letting it run on. */
  readonly exit: boolean;
  /** Milliseconds that the dump may take. */
  readonly timeoutMs: number;
}

/** What the instant is made with; tests hand in their own. */
export interface InstantTools {
  readonly zfs: Pick<Zfs, 'snapshot' | 'destroyIdempotent'>;
  readonly syncfs?: (path: string) => Promise<void>;
  readonly freezer?: Freezer;
  readonly pids?: () => Promise<number[]>;
  readonly kill?: () => Promise<void>;
  readonly log?: Logger;
}

/** Nanoseconds of each phase. `frozen` runs from the first stopped task to the thaw. */
export interface InstantTimes {
  freeze: bigint;
  dump: bigint;
  sync: bigint;
  snapshot: bigint;
  frozen: bigint;
}

export interface InstantResult {
  /** Whether a whole image stands in `imageDir`. */
  readonly memory: boolean;
  /** CRIU's own reason when memory was wanted and could not be had. */
  readonly memoryError: string;
  /** Whether the container was paused before; then it still is, unless it was to exit. */
  readonly wasPaused: boolean;
  readonly exited: boolean;
  readonly imageBytes: number;
  readonly times: InstantTimes;
}

/**
 * Freezes the container, dumps its memory, snapshots its disk, and thaws (or ends) it.
 *
 * INVARIANTS. Nothing of the container runs between the first stopped task and the end of the snapshot: it is frozen
 * before CRIU begins, CRIU holds its tasks by ptrace while it has the cgroup thawed, and it must be found frozen again
 * after the dump, or the instant is given up. Whatever is thrown, the container then runs (or stays paused) as before, the
 * snapshot does not exist and the image folder is empty. Only ending the container cannot be undone, so it comes last.
 *
 * @throws FailedPrecondition when it is not running, or the dump failed and memory was required; Cancelled when `signal`
 *   aborts; DeadlineExceeded; Aborted when it did not stay frozen; and what the doors to zfs and the runtime throw
 */
export async function takeInstant(
  target: InstantTarget,
  plan: InstantPlan,
  tools: InstantTools,
  signal: AbortSignal,
): Promise<InstantResult> {
  return new Instant(target, plan, tools, signal).take();
}

class Instant {
  readonly #target: InstantTarget;
  readonly #plan: InstantPlan;
  readonly #tools: InstantTools;
  readonly #signal: AbortSignal;
  readonly #freezer: Freezer;
  readonly #syncfs: (path: string) => Promise<void>;
  readonly #undo = new UndoStack();
  /** How the container was found; undefined before it is touched, and when it has been ended. */
  #before: 'running' | 'paused' | undefined;
  readonly #times: InstantTimes = { freeze: 0n, dump: 0n, sync: 0n, snapshot: 0n, frozen: 0n };

  constructor(target: InstantTarget, plan: InstantPlan, tools: InstantTools, signal: AbortSignal) {
    this.#target = target;
    this.#plan = plan;
    this.#tools = tools;
    this.#signal = signal;
    this.#freezer = tools.freezer ?? freezerOf(target.cgroup);
    this.#syncfs = tools.syncfs ?? syncfs;
  }

  async take(): Promise<InstantResult> {
    try {
      return await this.#steps();
    } catch (error) {
      // First of all: a pool that hangs must not keep the container standing still as well.
      await this.#release().catch((failure: unknown) => this.#notUndone('let the container run', failure));
      for (const failure of await this.#undo.rollback()) this.#notUndone(failure.what, failure.error);
      // Whatever broke while the caller was going away, it is the going away that counts.
      throw this.#signal.aborted ? cancelled(this.#target.id) : error;
    }
  }

  /** As before: running, or paused by its user. A dump that broke off may have left either. */
  async #release(): Promise<void> {
    if (this.#before === 'running') await this.#freezer.thaw();
    if (this.#before === 'paused') await this.#freezer.freeze();
  }

  #notUndone(step: string, error: unknown): void {
    const log = this.#tools.log ?? silent;
    log.error('a checkpoint could not be undone', { id: this.#target.id, step, error: messageOf(error) });
  }

  async #steps(): Promise<InstantResult> {
    const { memory, disk, exit } = this.#plan;
    await this.#requireRunning('is not running');
    const wasPaused = await this.#freezer.isFrozen();
    if (memory !== undefined) {
      await prepareImage(memory.imageDir);
      this.#undo.push('empty the image folder', () => emptyImage(memory.imageDir));
    }
    // What is dirty by now is written while the container still runs, so that the syncfs inside is short.
    if (disk !== undefined && !wasPaused) await this.#syncfs(disk.syncPath);
    this.#check();

    const frozenAt = now();
    this.#before = wasPaused ? 'paused' : 'running';
    if (!wasPaused) {
      await this.#freezer.freeze();
      this.#times.freeze = now() - frozenAt;
    }
    await this.#requireRunning('ended while it was being frozen');
    const memoryError = memory === undefined ? undefined : await this.#dump(memory, disk !== undefined);
    if (disk !== undefined) await this.#snapshot(disk);
    this.#check();

    // Ending it is the one step that cannot be undone.
    if (exit) await (this.#tools.kill ?? (() => killCgroup(this.#target.cgroup)))();
    else if (!wasPaused) await this.#freezer.thaw();
    this.#times.frozen = now() - frozenAt;
    if (exit) {
      this.#undo.commit();
      this.#before = undefined;
    }

    const dumped = memory !== undefined && memoryError === undefined;
    const image = dumped ? await readImage(memory.imageDir) : undefined;
    if (dumped && image !== undefined) await guardImage(memory.imageDir, image);
    if (!exit) this.#check();
    this.#undo.commit();
    return {
      memory: dumped,
      memoryError: memoryError ?? '',
      wasPaused,
      exited: exit,
      imageBytes: image?.bytes ?? 0,
      times: this.#times,
    };
  }

  /** @returns CRIU's reason where it failed and the disk alone will do */
  async #dump(memory: MemoryPlan, hasDisk: boolean): Promise<string | undefined> {
    const began = now();
    try {
      await this.#target.runtime.checkpoint({
        ...memory.criu,
        id: this.#target.id,
        imageDir: memory.imageDir,
        workDir: memory.workDir,
        leaveRunning: true,
        timeoutMs: this.#plan.timeoutMs,
        signal: this.#signal,
        ...(memory.parentPath === undefined ? {} : { parentPath: memory.parentPath }),
      });
      await requireWholeImage(memory.imageDir);
    } catch (error) {
      const reason = await this.#dumpFailure(memory, error);
      if (memory.required || !hasDisk) {
        throw new FailedPrecondition(`the memory of ${this.#target.id} cannot be dumped: ${reason}`, {
          subject: this.#target.id,
          reason: 'memory-not-dumped',
          cause: error,
          remedy: hasDisk
            ? 'leave out --require-memory to keep the disk alone'
            : `see dump.log in ${memory.workDir} for the whole story`,
        });
      }
      await emptyImage(memory.imageDir);
      // CRIU lets the tasks go as it found them, or running: the disk needs them still, from now on.
      await this.#freezer.freeze();
      await this.#requireRunning('ended during its dump');
      return reason;
    } finally {
      this.#times.dump = now() - began;
    }
    if (!(await this.#freezer.isFrozen())) {
      await this.#requireRunning('ended during its dump');
      throw new Aborted(
        `${this.#target.id} did not stay frozen during its dump, so memory and disk would differ`,
        {
          subject: this.#target.id,
          remedy: 'try again; if it happens each time, see what else thaws its cgroup',
        },
      );
    }
    return undefined;
  }

  /**
   * Makes sure that no CRIU is left at work after a failed dump, and says why it failed.
   * @throws what makes going on pointless: the caller is gone, time is up, the container is
   */
  async #dumpFailure(memory: MemoryPlan, error: unknown): Promise<string> {
    await endStrayCriu([memory.imageDir, memory.workDir]);
    if (isOciError(error, 'cancelled')) throw cancelled(this.#target.id);
    if (isOciError(error, 'timeout')) {
      throw new DeadlineExceeded(
        `the dump of ${this.#target.id} took longer than ${this.#plan.timeoutMs} ms`,
        {
          subject: this.#target.id,
          remedy: 'raise checkpoint.timeout in the configuration',
          cause: error,
        },
      );
    }
    await this.#requireRunning('ended during its dump');
    const failure = await lastError(join(memory.workDir, 'dump.log'));
    return failure === undefined ? messageOf(error) : describeFailure(failure);
  }

  async #snapshot(disk: DiskPlan): Promise<void> {
    this.#check();
    const began = now();
    await this.#syncfs(disk.syncPath);
    this.#times.sync = now() - began;
    this.#check();
    const second = now();
    const destroy = (): Promise<void> => this.#tools.zfs.destroyIdempotent(disk.snapshot);
    try {
      await this.#tools.zfs.snapshot(
        [disk.snapshot],
        { properties: disk.properties },
        { signal: this.#signal },
      );
    } catch (error) {
      // A command that was killed may have done its work; one that found the name taken has not, and it is not ours.
      if (!(error instanceof AlreadyExists)) this.#undo.push('destroy the snapshot', destroy);
      throw error;
    }
    this.#undo.push('destroy the snapshot', destroy);
    this.#times.snapshot = now() - second;
  }

  async #requireRunning(what: string): Promise<void> {
    const pids = await (this.#tools.pids ?? (() => cgroupPids(this.#target.cgroup)))();
    if (pids.includes(this.#target.pid)) return;
    throw new FailedPrecondition(`container ${this.#target.id} ${what}`, {
      subject: this.#target.id,
      reason: 'container-not-running',
    });
  }

  #check(): void {
    if (this.#signal.aborted) throw cancelled(this.#target.id);
  }
}

function cancelled(id: string): Cancelled {
  return new Cancelled(`the caller went away, so the checkpoint of ${id} was undone`, { subject: id });
}

function now(): bigint {
  return process.hrtime.bigint();
}
