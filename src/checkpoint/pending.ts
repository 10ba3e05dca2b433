import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';

/** A container that an operation is making, and that must not stay if the operation dies. */
export interface PendingContainer {
  readonly namespace: string;
  readonly container: string;
  /** Its snapshot, which is removed with it. */
  readonly snapshotter: string;
  readonly snapshotKey: string;
}

/** A container that was not made to its end. */
export interface Left {
  readonly container: PendingContainer;
  /** Whether it is so even now. */
  still(): boolean;
  done(): Promise<void>;
}

/**
 * Operations under way that make containers, one small file each in the run-time directory. A file is there
 * before the first change and gone after the last, so whatever is found without one of this process's was cut off.
 */
export class Pending {
  readonly #folder: string;
  /** Paths of those that this process is at work on. */
  readonly #active = new Set<string>();

  constructor(runDir: string) {
    this.#folder = `${runDir}/pending`;
  }

  /**
   * Notes a container that is about to be made; `done` when it is whole, or undone. What is disposed of without that was given
   * up half-way, and is among what is `left`.
   */
  note(container: PendingContainer): { done(): void } & Disposable {
    // On this thread, as the folder is on a tmpfs.
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const path = `${this.#folder}/${container.namespace}.${container.container}`;
    writeFileSync(`${path}.new`, JSON.stringify(container), { mode: 0o600 });
    renameSync(`${path}.new`, path);
    this.#active.add(path);
    return {
      done: () => rmSync(path, { force: true }),
      [Symbol.dispose]: () => void this.#active.delete(path),
    };
  }

  /** What an earlier process left unfinished, and what this one could not undo. */
  async left(): Promise<Left[]> {
    const names = await readdir(this.#folder).catch(() => []);
    const found: Left[] = [];
    for (const name of names) {
      const path = `${this.#folder}/${name}`;
      if (this.#active.has(path.replace(/\.new$/, ''))) continue;
      const done = (): Promise<void> => rm(path, { force: true });
      if (name.endsWith('.new')) {
        await done(); // never took effect
        continue;
      }
      const text = await readFile(path, 'utf8').catch(() => undefined); // finished in this moment
      if (text === undefined) continue;
      const still = (): boolean => existsSync(path) && !this.#active.has(path);
      found.push({ container: JSON.parse(text) as PendingContainer, still, done });
    }
    return found;
  }
}
