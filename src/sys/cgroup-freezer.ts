import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineExceeded, FailedPrecondition, hasErrno, NotFound } from '../errors.ts';
import { folderOf, type Cgroup } from './cgroup.ts';

/** Stops and resumes every process of a cgroup, without a process of our own. */
export interface Freezer {
  /**
   * Returns once every task stands still. On failure the cgroup is thawed again.
   * @throws DeadlineExceeded when some task will not stop; NotFound when the cgroup is gone
   */
  freeze(options?: { timeoutMs?: number }): Promise<void>;
  /** Lets all run. A cgroup that is gone needs no thaw. */
  thaw(): Promise<void>;
  /**
   * Whether every task stands still. False for a cgroup that is gone. Asked on this thread: the kernel answers from memory, and
   * the five trips through libuv's threads that the reading of a file takes are longer than all else of a delete.
   */
  isFrozen(): Promise<boolean>;
}

const DEFAULT_TIMEOUT_MS = 10_000;
/** v1: how long one attempt may stay FREEZING until the cgroup is thawed for a moment, and how long that is. */
const ATTEMPT_MS = 200;
const BREATH_MS = 2;

/** @throws FailedPrecondition where the freezer controller is not mounted */
export function freezerOf(cgroup: Cgroup): Freezer {
  const folder = folderOf(cgroup, 'freezer');
  if (folder === undefined) {
    throw new FailedPrecondition('the cgroup freezer is not mounted', {
      subject: cgroup.path,
      remedy: 'mount -t cgroup -o freezer cgroup /sys/fs/cgroup/freezer',
    });
  }
  return cgroup.version === 2 ? new FreezerV2(folder) : new FreezerV1(folder);
}

/**
 * freezer-subsystem.rst: `freezer.state` reads FREEZING until the last task has stopped, and may stay so for ever while
 * tasks fork or sit in a system call that a frozen one is to end. Writing FROZEN again makes the kernel look again; a
 * short thaw lets such tasks move on.
 */
class FreezerV1 implements Freezer {
  readonly #state: string;

  constructor(folder: string) {
    this.#state = join(folder, 'freezer.state');
  }

  async freeze({ timeoutMs = DEFAULT_TIMEOUT_MS } = {}): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    try {
      for (;;) {
        if (await this.#attempt(Math.min(deadline, performance.now() + ATTEMPT_MS))) return;
        if (performance.now() >= deadline) break;
        await this.#write('THAWED');
        await sleep(BREATH_MS);
      }
    } catch (error) {
      await this.thaw();
      throw error;
    }
    await this.thaw();
    throw tooLate(this.#state, timeoutMs);
  }

  async #attempt(until: number): Promise<boolean> {
    for (let pause = 0; ; pause = Math.min(pause + 1, 10)) {
      await this.#write('FROZEN');
      if (await this.isFrozen()) return true;
      if (performance.now() >= until) return false;
      await sleep(pause);
    }
  }

  async thaw(): Promise<void> {
    await this.#write('THAWED').catch(unlessGone);
  }

  async isFrozen(): Promise<boolean> {
    return read(this.#state).trim() === 'FROZEN';
  }

  async #write(state: 'FROZEN' | 'THAWED'): Promise<void> {
    await writeFile(this.#state, state, { flag: 'r+' }).catch(asNotFound(this.#state));
  }
}

/** cgroup-v2.rst: `cgroup.freeze` is the wish, `frozen` in `cgroup.events` the fact. */
class FreezerV2 implements Freezer {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async freeze({ timeoutMs = DEFAULT_TIMEOUT_MS } = {}): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    await this.#write('1');
    for (let pause = 0; !(await this.isFrozen()); pause = Math.min(pause + 1, 10)) {
      if (performance.now() >= deadline) {
        await this.thaw();
        throw tooLate(this.#folder, timeoutMs);
      }
      await sleep(pause);
    }
  }

  async thaw(): Promise<void> {
    await this.#write('0').catch(unlessGone);
  }

  async isFrozen(): Promise<boolean> {
    return /^frozen 1$/m.test(read(join(this.#folder, 'cgroup.events')));
  }

  async #write(value: '0' | '1'): Promise<void> {
    const file = join(this.#folder, 'cgroup.freeze');
    await writeFile(file, value, { flag: 'r+' }).catch(asNotFound(file));
  }
}

function tooLate(subject: string, timeoutMs: number): DeadlineExceeded {
  return new DeadlineExceeded(`the container did not stand still within ${timeoutMs} ms`, { subject });
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (isGone(error)) return '';
    throw error;
  }
}

/** A removed cgroup: ENOENT by name, ENODEV through an open file. */
function isGone(error: unknown): boolean {
  return hasErrno(error, 'ENOENT') || hasErrno(error, 'ENODEV');
}

function unlessGone(error: unknown): void {
  if (!(error instanceof NotFound)) throw error;
}

function asNotFound(file: string): (error: unknown) => never {
  return (error) => {
    throw isGone(error)
      ? new NotFound(`the cgroup is gone: ${file}`, { subject: file, cause: error })
      : error;
  };
}
