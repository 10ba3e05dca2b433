// Notes of what is under way, one small file each on the tmpfs of the run-time directory, for a process that comes after this one.
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { hasErrno, ResourceExhausted } from '../errors.ts';

/** The container that a note is of. */
export interface Noted {
  readonly namespace: string;
  readonly container: string;
}

/** A note of which nobody is at work any more. */
export interface LeftNote<T> {
  readonly note: T;
  /** Whether it is so even now. */
  still(): boolean;
  done(): Promise<void>;
}

/** A note that this process is at work on. What is disposed of without `done` is left. */
export interface OpenNote<T> extends Disposable {
  readonly note: T;
  /** Writes it anew. */
  change(changes: Partial<T>): void;
  done(): void;
}

/** No container's name begins so. */
const UNWRITTEN = '.new-';

/**
 * A file is there before the first change of what it tells of, and gone after the last; so whatever is found without one of
 * this process's was cut off. They are written on this thread, as the folder is on a tmpfs.
 */
export class Notes<T extends Noted> {
  readonly #folder: string;
  /** Paths of those that this process is at work on. */
  readonly #active = new Set<string>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Begins to work on a container, in the place of what was left of another work on it. */
  open(note: T): OpenNote<T> {
    const path = this.#pathOf(note);
    let now = note;
    const write = (): void => {
      const unwritten = `${this.#folder}/${UNWRITTEN}${nameOf(note)}`;
      try {
        mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
        writeFileSync(unwritten, JSON.stringify(now), { mode: 0o600 });
        renameSync(unwritten, path);
      } catch (error) {
        rmSync(unwritten, { force: true });
        throw hasErrno(error, 'ENOSPC') ? full(this.#folder, error) : error;
      }
    };
    write();
    this.#active.add(path);
    return {
      get note() {
        return now;
      },
      change: (changes) => {
        now = { ...now, ...changes };
        write();
      },
      done: () => rmSync(path, { force: true }),
      [Symbol.dispose]: () => void this.#active.delete(path),
    };
  }

  /** What is left of a work on a container; undefined where there is nothing. */
  of(container: Noted): T | undefined {
    const path = this.#pathOf(container);
    return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as T) : undefined;
  }

  /** What an earlier process left unfinished, and what this one could not undo. */
  async left(): Promise<LeftNote<T>[]> {
    const found: LeftNote<T>[] = [];
    for (const name of await readdir(this.#folder).catch(() => [])) {
      const path = `${this.#folder}/${name}`;
      if (this.#active.has(path)) continue;
      if (name.startsWith(UNWRITTEN)) {
        await rm(path, { force: true }); // never took effect
        continue;
      }
      const text = await readFile(path, 'utf8').catch(() => undefined); // finished in this moment
      if (text === undefined) continue;
      found.push({
        note: JSON.parse(text) as T,
        still: () => existsSync(path) && !this.#active.has(path),
        done: () => rm(path, { force: true }),
      });
    }
    return found;
  }

  #pathOf(container: Noted): string {
    return `${this.#folder}/${nameOf(container)}`;
  }
}

function full(folder: string, cause: unknown): ResourceExhausted {
  return new ResourceExhausted(`there is no room in ${folder} for a note of what is under way`, {
    subject: folder,
    reason: 'run-dir-full',
    cause,
    remedy: `make room on its file system: df ${folder}`,
  });
}

/** Neither has an `@` in its name. */
function nameOf({ namespace, container }: Noted): string {
  return `${namespace}@${container}`;
}
