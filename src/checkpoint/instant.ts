// One frozen instant: memory and disk of a container, taken while it stands still.
import { access } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { guardImage, prepareImage, emptyImage, readImage } from '../criu/image.ts';
import { Aborted, AlreadyExists, FailedPrecondition, messageOf } from '../errors.ts';
import { silent } from '../log.ts';
import { cgroupPids } from '../sys/cgroup.ts';
import { cpuUsage } from '../sys/cgroup-cpu.ts';
import { freezerOf, type Freezer } from '../sys/cgroup-freezer.ts';
import { killCgroup } from '../sys/cgroup-remove.ts';
import { syncfs } from '../sys/syncfs.ts';
import { freezeOutsideVfork } from '../sys/vfork.ts';
import { dumpMemory } from './dump.ts';
import { cancelled, DumpFailure } from './ending.ts';
import type {
  DiskPlan,
  InstantPlan,
  InstantResult,
  InstantTarget,
  InstantTimes,
  InstantTools,
  MemoryPlan,
} from './instant-plan.ts';
import { UndoStack } from './undo.ts';

export type {
  DiskPlan,
  InstantPlan,
  InstantResult,
  InstantTarget,
  InstantTools,
  MemoryPlan,
} from './instant-plan.ts';

/** How often an instant is taken at most that meets what is of that moment alone, and the pause after the first, in milliseconds. */
const TRIES = 6;
const FIRST_PAUSE_MS = 10;

/**
 * Freezes the container, dumps its memory, snapshots its disk meanwhile, and thaws (or ends) it. Where CRIU meets what is of
 * that moment alone (a connection that is just being made), all is undone, the container runs on for a moment, and another
 * instant is taken: a client that connects again and again is met so in a good part of all dumps.
 *
 * INVARIANTS. Nothing of the container runs between the first stopped task and the end of both the dump and the snapshot:
 * it is frozen before CRIU begins, CRIU holds its tasks by ptrace while it has the cgroup thawed, and it must be found
 * frozen again after the dump, or the instant is given up. Whatever is thrown, the container then runs (or stays paused) as
 * before, the snapshot does not exist and the image folder is empty. Only ending the container cannot be undone, so it
 * comes last.
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
  for (let tries = 1, pause = FIRST_PAUSE_MS; ; tries++, pause *= 2) {
    // Those of a set have met at their gates, and cannot come to them again.
    const isLast = tries === TRIES || tools.gates !== undefined;
    try {
      return await new Instant(target, plan, tools, signal, isLast).take();
    } catch (error) {
      if (!(error instanceof Passing)) throw error;
      (tools.log ?? silent).info('taken again a moment later', { id: target.id, reason: error.message });
      await sleep(pause);
    }
  }
}

/** What was in the way of a dump may be gone in a moment, and everything is undone. */
class Passing extends Error {}

/**
 * Whether disk and memory may be taken side by side. CRIU's plugin for NVIDIA GPUs lets the container run for a moment
 * before it seizes it; with such a device about, the disk waits until memory is done.
 */
async function mayOverlap(): Promise<boolean> {
  return access('/dev/nvidiactl').then(
    () => false,
    () => true,
  );
}

class Instant {
  readonly #target: InstantTarget;
  readonly #plan: InstantPlan;
  readonly #tools: InstantTools;
  readonly #signal: AbortSignal;
  readonly #freezer: Freezer;
  readonly #syncfs: (path: string) => Promise<void>;
  /** It is final what this one comes to: none is taken after it. */
  readonly #isLast: boolean;
  readonly #undo = new UndoStack();
  readonly #times: InstantTimes = { freeze: 0n, dump: 0n, sync: 0n, snapshot: 0n, frozen: 0n };
  /** How the container was found; undefined before it is touched, and when it has been ended. */
  #before: 'running' | 'paused' | undefined;
  /** The snapshot under way, or made. */
  #snapshotting: Promise<void> | undefined;
  /** Why the image does not refer to pre-dumps although it was to. */
  #parentError = '';

  constructor(
    target: InstantTarget,
    plan: InstantPlan,
    tools: InstantTools,
    signal: AbortSignal,
    isLast: boolean,
  ) {
    this.#isLast = isLast;
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
      if (this.#tools.gates === undefined) await this.#snapshotting?.catch(() => undefined);
      for (const failure of await this.#undo.rollback()) this.#notUndone(failure.what, failure.error);
      // Whatever broke while the caller was going away, it is the going away that counts.
      throw this.#signal.aborted ? cancelled(this.#target.id) : error;
    }
  }

  async #steps(): Promise<InstantResult> {
    const { memory, disk, exit } = this.#plan;
    await this.#requireRunning('is not running');
    if (memory !== undefined && this.#target.missing?.() === true) throw memoryMissing(this.#target.id);
    const wasPaused = await this.#freezer.isFrozen();
    if (memory !== undefined) {
      await prepareImage(memory.imageDir, memory.isGiven !== true);
      this.#undo.push('empty the image folder', () => emptyImage(memory.imageDir));
    }
    // What is dirty by now is written while the container still runs, so that the syncfs inside is short.
    if (disk !== undefined && !wasPaused) await this.#syncfs(disk.syncPath);
    const overlap = await (this.#tools.overlap ?? mayOverlap)();
    // Asked the first time it starts two processes; from then on the answer is kept, and the container need not wait for it.
    if (memory !== undefined) await this.#tools.criu?.get().catch(() => undefined);
    this.#check();

    const frozenAt = now();
    this.#before = wasPaused ? 'paused' : 'running';
    if (!wasPaused) {
      if (memory === undefined) await this.#freezer.freeze();
      else await freezeOutsideVfork(this.#freezer, () => this.#pids());
      this.#times.freeze = now() - frozenAt;
    }
    await this.#requireRunning('ended while it was being frozen');
    await this.#tools.gates?.still();
    // CRIU first: it is what the container waits for, and starting zfs takes a while too.
    const meanwhile = (): void => {
      if (disk !== undefined && overlap) void this.#startSnapshot(disk);
    };
    const memoryError = memory === undefined ? undefined : await this.#dump(memory, meanwhile);
    if (disk !== undefined) await (this.#snapshotting ?? this.#startSnapshot(disk));
    await this.#waitForOthers();
    this.#check();

    const cpuNs = wasPaused && !exit ? ((await cpuUsage(this.#target.cgroup)) ?? 0n) : 0n;
    // Ending it is the one step that cannot be undone.
    if (exit) await (this.#tools.kill ?? (() => killCgroup(this.#target.cgroup, this.#target.pid)))();
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
      parentError: this.#parentError,
      cpuNs,
      times: this.#times,
    };
  }

  /** @returns CRIU's reason where it failed and the disk alone will do */
  async #dump(memory: MemoryPlan, onStart: () => void): Promise<string | undefined> {
    const { disk, timeoutMs } = this.#plan;
    const began = now();
    try {
      const limits = { timeoutMs, signal: this.#signal };
      const without = await this.#dumpFrom(memory, { ...limits, onStart });
      if (without !== undefined) await dumpMemory(this.#target, without, this.#tools, limits);
    } catch (error) {
      if (!(error instanceof DumpFailure)) throw error;
      await this.#requireRunning('ended during its dump');
      // What is paused stays as it is.
      if (error.passing && !this.#isLast && this.#before === 'running') throw new Passing(error.message);
      if (memory.required || disk === undefined) throw this.#notDumped(memory, error);
      await this.#keepStill(disk);
      return error.message;
    } finally {
      this.#times.dump = now() - began;
    }
    await this.#requireFrozen('during its dump', 'memory and disk would differ');
    return undefined;
  }

  /**
   * A dump that refers to pre-dumps, where there are any: some kernels lose pages of those (CRIU says "Missing in parent
   * pagemap"), and one that refers to none does not fail for that.
   * @returns what to dump without them, where it failed and the container still stands still
   */
  async #dumpFrom(
    memory: MemoryPlan,
    limits: Parameters<typeof dumpMemory>[3],
  ): Promise<MemoryPlan | undefined> {
    try {
      await dumpMemory(this.#target, memory, this.#tools, limits);
      return undefined;
    } catch (error) {
      const { parentPath, ...whole } = memory;
      if (!(error instanceof DumpFailure) || parentPath === undefined || error.passing) throw error;
      if (!(await this.#freezer.isFrozen())) throw error;
      this.#parentError = error.message;
      return whole;
    }
  }

  async #requireFrozen(when: string, thus: string): Promise<void> {
    if (await this.#freezer.isFrozen()) return;
    await this.#requireRunning(`ended ${when}`);
    throw new Aborted(`${this.#target.id} did not stay frozen ${when}, so ${thus}`, {
      subject: this.#target.id,
      remedy: 'try again; if it happens each time, see what else thaws its cgroup',
    });
  }

  /** The last gate, before which nothing is final for any of the containers. */
  async #waitForOthers(): Promise<void> {
    const { gates } = this.#tools;
    if (gates === undefined) return;
    await gates.dumped();
    await this.#requireFrozen('until the others were done', 'they are not of one instant');
  }

  /** After a failed dump. A CRIU that died has let the container run: then the disk is taken anew. */
  async #keepStill(disk: DiskPlan): Promise<void> {
    if (await this.#freezer.isFrozen()) return;
    await this.#freezer.freeze();
    await this.#requireRunning('ended during its dump');
    if (this.#snapshotting === undefined) return;
    await this.#snapshotting;
    if (this.#tools.gates === undefined) await this.#tools.zfs.destroyIdempotent(disk.snapshot);
    void this.#startSnapshot(disk);
  }

  #notDumped(memory: MemoryPlan, failure: DumpFailure): FailedPrecondition {
    return new FailedPrecondition(`the memory of ${this.#target.id} cannot be dumped: ${failure.message}`, {
      subject: this.#target.id,
      reason: 'memory-not-dumped',
      cause: failure,
      remedy:
        this.#plan.disk === undefined
          ? `see dump.log in ${memory.workDir} for the whole story`
          : 'leave out --require-memory to keep the disk alone',
    });
  }

  #startSnapshot(disk: DiskPlan): Promise<void> {
    const made = this.#snapshot(disk);
    made.catch(() => undefined); // whoever waits for it gets the error; until then nobody does
    this.#snapshotting = made;
    return made;
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

  async #snapshot(disk: DiskPlan): Promise<void> {
    this.#check();
    const began = now();
    await this.#syncfs(disk.syncPath);
    this.#times.sync = now() - began;
    this.#check();
    const second = now();
    if (this.#tools.gates !== undefined) {
      await this.#tools.gates.synced();
      this.#times.snapshot = now() - second;
      return;
    }
    const destroy = (): Promise<void> => this.#tools.zfs.destroyIdempotent(disk.snapshot);
    try {
      // Not cancelled with the caller: a killed command's snapshot may still appear, after it has been looked for in vain.
      await this.#tools.zfs.snapshot([disk.snapshot], { properties: disk.properties });
    } catch (error) {
      // One that found the name taken has done nothing, and what is there is not ours.
      if (!(error instanceof AlreadyExists)) this.#undo.push('destroy the snapshot', destroy);
      throw error;
    }
    this.#undo.push('destroy the snapshot', destroy);
    this.#times.snapshot = now() - second;
  }

  #pids(): Promise<number[]> {
    return (this.#tools.pids ?? (() => cgroupPids(this.#target.cgroup)))();
  }

  async #requireRunning(what: string): Promise<void> {
    if ((await this.#pids()).includes(this.#target.pid)) return;
    throw new FailedPrecondition(`container ${this.#target.id} ${what}`, {
      subject: this.#target.id,
      reason: 'container-not-running',
    });
  }

  #check(): void {
    if (this.#signal.aborted) throw cancelled(this.#target.id);
  }
}

function memoryMissing(id: string): FailedPrecondition {
  return new FailedPrecondition(`the memory of container ${id} is not all there, so it cannot be dumped`, {
    subject: id,
    reason: 'still-filling',
    remedy: `see how far it is: stasis inspect ${id}`,
  });
}

function now(): bigint {
  return process.hrtime.bigint();
}
