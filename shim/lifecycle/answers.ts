import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** containerd runs `delete` at once when a task's connection closes; a minute later nobody will. */
const KEEP_MS = 60_000;

/** The answers for the shim binary's `delete` that deleted tasks left behind: taken away when nobody asks any more. */
export class Answers {
  readonly #folder: string;
  readonly #timer: NodeJS.Timeout;

  /** @param folder a namespace's task folders */
  constructor(folder: string) {
    this.#folder = folder;
    this.#timer = setInterval(() => void this.sweep(), KEEP_MS).unref();
    void this.sweep();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Never throws: what cannot be removed now is found again later. */
  async sweep(keepMs = KEEP_MS): Promise<void> {
    const before = Date.now() - keepMs;
    const names = await readdir(this.#folder).catch(() => []);
    for (const name of names) {
      const folder = join(this.#folder, name);
      // A task that lives has a record, one that comes has no answer.
      const lives = await stat(join(folder, 'state.json')).catch(() => undefined);
      const answer = await stat(join(folder, 'deleted')).catch(() => undefined);
      if (lives !== undefined || answer === undefined || answer.mtimeMs > before) continue;
      await rm(folder, { recursive: true, force: true }).catch(() => undefined);
    }
  }
}
