import { appendFileSync, ftruncateSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { hasErrno } from '../../src/errors.ts';
import type { ExitNote } from './messages.ts';

/** One line of the file: how a process has ended, or which nobody will ask for. */
type Line = { readonly exit: ExitNote } | { readonly forget: readonly number[] };

/** So many lines are not written anew though few of them count. */
const FEW_LINES = 1000;

/** A guard, as the records of its tasks name it. */
export interface GuardName {
  readonly pid: number;
  readonly startTime: string;
}

/** The journal of one guard's exits. @param folder Paths.exits */
export function exitJournal(folder: string, { pid, startTime }: GuardName): string {
  return join(folder, `${pid}.${startTime}`);
}

/** How processes have ended, on a tmpfs, for whoever clears away what a killed guard leaves. */
export class ExitJournal {
  readonly #path: string;
  readonly #fd: number;
  #lines = 0;

  /** @param kept what the program before this one has kept, in the same process */
  constructor(folder: string, self: GuardName, kept: readonly ExitNote[]) {
    mkdirSync(folder, { recursive: true, mode: 0o711 });
    this.#path = exitJournal(folder, self);
    this.#fd = openSync(this.#path, 'a', 0o600);
    this.#writeAnew(kept);
  }

  add(exit: ExitNote): void {
    this.#write({ exit });
  }

  /** @param kept those that are left */
  forget(pids: readonly number[], kept: readonly ExitNote[]): void {
    if (kept.length === 0 || (this.#lines > FEW_LINES && this.#lines > 4 * kept.length))
      this.#writeAnew(kept);
    else this.#write({ forget: pids });
  }

  /** There are no tasks any more. */
  remove(): void {
    rmSync(this.#path, { force: true });
  }

  #writeAnew(kept: readonly ExitNote[]): void {
    ftruncateSync(this.#fd);
    this.#lines = 0;
    for (const exit of kept) this.add(exit);
  }

  #write(line: Line): void {
    this.#lines++;
    appendFileSync(this.#fd, `${JSON.stringify(line)}\n`);
  }
}

/** What is in the journal of a guard that has ended; empty where it had none. A last line that was cut off counts for nothing. */
export function exitsLeft(folder: string, guard: GuardName): ExitNote[] {
  const kept = new Map<number, ExitNote>();
  for (const raw of textOf(exitJournal(folder, guard)).split('\n').slice(0, -1)) {
    const line = JSON.parse(raw) as Line;
    if ('exit' in line) kept.set(line.exit.pid, line.exit);
    else for (const pid of line.forget) kept.delete(pid);
  }
  return [...kept.values()];
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return '';
    throw error;
  }
}
