import { mkdirSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../../src/errors.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import type { Mount } from '../../src/sys/mount.ts';
import type { Exit } from '../reaper/reaper.ts';

/** What a process other than the one that made a task needs to take it up, or to clear it away. */
export interface TaskRecord {
  readonly version: 1;
  readonly id: string;
  readonly namespace: string;
  readonly bundle: string;
  readonly rootfs: readonly Mount[];
  readonly terminal: boolean;
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  /** Image folder that Start restores from; empty for a usual task. */
  readonly checkpoint: string;
  /** Folder of its lazy restore, src/pages/fill-files.ts. */
  readonly fill?: string;
  /** The OCI runtime: program, root folder, and whether systemd keeps the cgroups. */
  readonly runtime: { readonly path: string; readonly root: string; readonly systemdCgroup: boolean };
  /** The process that keeps the record, the shim. Older ones did not say. */
  readonly shim?: Keeping;
  readonly state: string;
  readonly pid: number;
  /** When the process started, in clock ticks since boot: a pid alone may be used again, proc(5). */
  readonly startTime: string;
  readonly exit?: ExitRecord;
  readonly execs: readonly { readonly id: string; readonly pid: number; readonly state: string }[];
  /** What only the worker that follows in this shim needs: without a guard nobody takes a task up. */
  readonly takeUp?: TakeUp;
}

/** How a process ended: seconds as text, as JSON has no such numbers. */
export interface ExitRecord {
  readonly status: number;
  readonly seconds: string;
  readonly nanos: number;
}

/** All of a task that is nowhere else. */
export interface TakeUp {
  /** CreateTaskRequest, in base64. */
  readonly request: string;
  /** Whether Create has come to its end. */
  readonly made: boolean;
  /** Whether Start is at work. */
  readonly starting: boolean;
  /** What the first process runs until it is started: the OCI runtime's program. */
  readonly waitingAs: string;
  readonly cgroup: string;
  /** How many kills for want of memory were reported; workers before did not say. */
  readonly oomKills?: string;
  readonly execs: readonly ExecTakeUp[];
  /** How the last execs ended that were deleted: a Delete whose answer got lost asks again. */
  readonly deleted: readonly { readonly id: string; readonly pid: number; readonly exit?: ExitRecord }[];
}

export interface ExecTakeUp {
  readonly id: string;
  /** ExecProcessRequest, in base64. */
  readonly request: string;
  readonly starting: boolean;
  readonly startTime: string;
  readonly exit?: ExitRecord;
}

/** The process that keeps records, as they name it. */
export interface Keeping {
  readonly pid: number;
  readonly startTime: string;
}

export function thisProcess(): Keeping {
  return { pid: process.pid, startTime: startTimeOf(process.pid) };
}

export function exitRecord(exit: Exit | undefined): { readonly exit?: ExitRecord } {
  if (exit === undefined) return {};
  const { status, at } = exit;
  return { exit: { status, seconds: String(at.seconds), nanos: at.nanos } };
}

export function exitOf(pid: number, { status, seconds, nanos }: ExitRecord): Exit {
  return { pid, status, at: { seconds: BigInt(seconds), nanos } };
}

/**
 * Keeps a task's record in the run folder; of several saves in one turn the last is written. On this thread: the folder
 * is on a tmpfs, where nothing waits for a disk, and each trip through libuv's threads costs more than the call.
 * The folder also holds `address`, through which others find the shim.
 */
export class RecordFile {
  readonly #folder: string;
  #waiting: (() => TaskRecord) | undefined;
  #scheduled = false;
  #removed = false;

  readonly #atOnce: boolean;

  /** @param atOnce whether each save is written before it returns, as a worker needs it that may be replaced at any instant */
  constructor(folder: string, { atOnce = false } = {}) {
    this.#folder = folder;
    this.#atOnce = atOnce;
  }

  /** Makes the folder, names the shim in it, and writes the first record. */
  create(address: string, record: TaskRecord): void {
    const made = mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    // Of the last task of that name.
    const leftovers = made === undefined ? ['deleted', 'dead', 'told', 'warnings'] : [];
    for (const name of leftovers) rmSync(join(this.#folder, name), { force: true });
    writeFileSync(join(this.#folder, 'address'), address, { mode: 0o600 });
    this.#write(record);
  }

  /** Writes what `record` says by the end of this turn. Never throws: the record serves a later process, not this one. */
  save(record: () => TaskRecord): void {
    this.#waiting = record;
    if (this.#atOnce) {
      this.#flush();
      return;
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#waiting === undefined || this.#removed) return;
    try {
      this.#write(this.#waiting());
    } catch {
      // The next save tries again.
    }
    this.#waiting = undefined;
  }

  /** Leaves the answer of the shim binary's `delete` behind, and nothing else. */
  finish(answer: string): void {
    this.#removed = true;
    try {
      writeFileSync(join(this.#folder, 'deleted'), `${answer}\n`, { mode: 0o600 });
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw error;
    }
    for (const name of ['state.json', 'address']) removeIfThere(join(this.#folder, name));
  }

  /** Takes the folder away: there has been no task. Never throws, as the Create has failed for a reason of its own. */
  remove(): void {
    this.#removed = true;
    try {
      rmSync(this.#folder, { recursive: true, force: true });
    } catch {
      // `delete` finds it.
    }
  }

  #write(record: TaskRecord): void {
    const path = join(this.#folder, 'state.json');
    writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}

/** Reads a task's record; undefined where there is none. */
export async function readRecord(folder: string): Promise<TaskRecord | undefined> {
  try {
    return JSON.parse(await readFile(join(folder, 'state.json'), 'utf8')) as TaskRecord;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
