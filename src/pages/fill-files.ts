import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { hasErrno } from '../errors.ts';
import { startTimeOf } from '../sys/process.ts';

/**
 * One restore whose memory comes in while the container runs: a folder of its own below `<run_dir>/pages`, from before the
 * task is created until its memory is all there or the task is deleted. Both sides outlive each other, so what they know of
 * it stands in files, each with one writer:
 *
 * | file | by | what |
 * |---|---|---|
 * | `note.json` | stasisd | that the restore is to be lazy, and what it keeps from being removed |
 * | `state.json` | the shim | how far it is |
 * | others | CRIU | socket and logs: the folder is its work folder |
 */
export interface FillNote {
  readonly namespace: string;
  readonly container: string;
  /** The checkpoint that is read from. */
  readonly checkpoint: { readonly id: string; readonly container: string; readonly name: string };
  /** The clone of the memory dataset that is read from; empty where the image is on the tmpfs. */
  readonly clone: string;
  /** Bytes of the image. */
  readonly totalBytes: number;
}

export interface FillState {
  readonly kind: 'filling' | 'complete' | 'failed';
  /** Page server. */
  readonly pid: number;
  /** When that started, in clock ticks since boot: a pid alone may be used again. */
  readonly startTime: string;
  readonly doneBytes: number;
  /** Since when no page has come, in Unix seconds; 0 where they do come. */
  readonly stalledSince: number;
  /** Why it failed. */
  readonly why: string;
}

const noteName = 'note.json';
const stateName = 'state.json';

/** Below which the folders are. */
export function fillsFolder(runDir: string): string {
  return join(runDir, 'pages');
}

/** Makes a restore's folder, which is its CRIU's work folder. On this thread, as it is on a tmpfs. */
export function writeNote(runDir: string, note: FillNote): string {
  const unique = `${note.namespace}.${note.container}.${process.hrtime.bigint().toString(36)}`;
  const folder = join(fillsFolder(runDir), unique);
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  write(folder, noteName, note);
  return folder;
}

/** Whether a work folder is such a restore's. */
export function isFill(folder: string): boolean {
  return existsSync(join(folder, noteName));
}

export function readNote(folder: string): FillNote | undefined {
  return read<FillNote>(folder, noteName);
}

/** Never makes the folder again: where it is gone nobody wants to know. */
export function writeState(folder: string, state: FillState): void {
  try {
    write(folder, stateName, state);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}

/** Undefined before the page server has been started. */
export function readState(folder: string): FillState | undefined {
  return read<FillState>(folder, stateName);
}

export function removeFill(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

/** The folders of all restores of this kind. */
export function listFills(runDir: string): string[] {
  const parent = fillsFolder(runDir);
  try {
    return readdirSync(parent).map((name) => join(parent, name));
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

function write(folder: string, name: string, content: FillNote | FillState): void {
  const path = join(folder, name);
  writeFileSync(`${path}.new`, JSON.stringify(content), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

function read<T>(folder: string, name: string): T | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, name), 'utf8')) as T;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** A task that has no page server yet gets one sooner than that. */
const UNBORN_MS = 600_000;

/**
 * Whether nothing reads from the image any more, and how it ended; undefined while something does. `gone` is a restore
 * whose task was deleted, or whose shim and page server are no more.
 */
export function fillEnded(folder: string): 'complete' | 'failed' | 'gone' | undefined {
  const state = readState(folder);
  if (state === undefined) return ageOf(folder) > UNBORN_MS ? 'gone' : undefined;
  if (state.kind !== 'filling') return state.kind;
  if (startTimeOf(state.pid) === state.startTime) return undefined;
  // It ended in this moment, and its shim has had the time to say how.
  const last = readState(folder);
  if (last === undefined) return 'gone';
  if (last.kind !== 'filling') return last.kind;
  return ageOf(join(folder, stateName)) > ABANDONED_MS ? 'gone' : undefined;
}

/** A shim that lives writes its state more often than that. */
const ABANDONED_MS = 15_000;

/** Milliseconds since it was changed; for ever where it is not there. */
function ageOf(path: string): number {
  const entry = statSync(path, { throwIfNoEntry: false });
  return entry === undefined ? Infinity : Date.now() - entry.mtimeMs;
}
