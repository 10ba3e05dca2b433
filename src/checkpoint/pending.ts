import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';

/** A container that an operation is making, and that must not stay if the operation dies. */
export interface PendingContainer {
  readonly namespace: string;
  readonly container: string;
  /** Its snapshot, which is removed with it. */
  readonly snapshotter: string;
  readonly snapshotKey: string;
}

/**
 * Operations under way that make containers, one small file each in the run-time directory. A file is there
 * before the first change and gone after the last, so whatever is found at start was cut off.
 */
export class Pending {
  readonly #folder: string;

  constructor(runDir: string) {
    this.#folder = `${runDir}/pending`;
  }

  /** Notes a container that is about to be made; `done` when it is whole, or undone. */
  note(container: PendingContainer): { done(): void } {
    // On this thread, as the folder is on a tmpfs.
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const path = `${this.#folder}/${container.namespace}.${container.container}`;
    writeFileSync(`${path}.new`, JSON.stringify(container), { mode: 0o600 });
    renameSync(`${path}.new`, path);
    return { done: () => rmSync(path, { force: true }) };
  }

  /** What an earlier process left unfinished. */
  async left(): Promise<{ container: PendingContainer; done(): Promise<void> }[]> {
    const names = await readdir(this.#folder).catch(() => []);
    const found: { container: PendingContainer; done(): Promise<void> }[] = [];
    for (const name of names) {
      const path = `${this.#folder}/${name}`;
      const done = (): Promise<void> => rm(path, { force: true });
      if (name.endsWith('.new')) {
        await done(); // never took effect
        continue;
      }
      found.push({ container: JSON.parse(await readFile(path, 'utf8')) as PendingContainer, done });
    }
    return found;
  }
}
