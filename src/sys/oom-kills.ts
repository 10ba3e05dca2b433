import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { folderOf, resolveCgroup } from './cgroup.ts';

/** What was counted in a file of a cgroup's; `file` is undefined where none counts, as in the root. */
interface Count {
  readonly file: string | undefined;
  readonly kills: number;
}

/**
 * Whether the kernel kills for want of memory in a process's cgroup: `oom_kill` in memory.events (cgroup-v2.rst) or memory.oom_control (v1).
 * Where another process of the same cgroup was killed so in the same moment, the two cannot be told apart.
 */
export class OomKills {
  readonly #pid: number;
  #membership = '';
  #older: Count = { file: undefined, kills: 0 };
  #newer: Count = this.#older;

  constructor(pid: number) {
    this.#pid = pid;
    this.note();
    this.#older = this.#newer;
  }

  /** Notes how many there have been. Never throws. */
  note(): void {
    const membership = textOf(`/proc/${this.#pid}/cgroup`);
    if (membership === '') return; // it has ended
    const file = membership === this.#membership ? this.#newer.file : fileOf(membership);
    this.#membership = membership;
    this.#older = this.#newer;
    this.#newer = { file, kills: killsIn(file) };
  }

  /** Whether there has been one since the last note but one: the last may have come between a kill and its being noticed. */
  get isMore(): boolean {
    const { file, kills } = this.#older.file === this.#newer.file ? this.#older : this.#newer;
    return killsIn(file) > kills;
  }
}

function fileOf(membership: string): string | undefined {
  const cgroup = resolveCgroup(membership, textOf('/proc/self/mountinfo'));
  const folder = cgroup === undefined ? undefined : folderOf(cgroup, 'memory');
  if (folder === undefined) return undefined;
  return join(folder, cgroup?.version === 2 ? 'memory.events' : 'memory.oom_control');
}

function killsIn(file: string | undefined): number {
  return file === undefined ? 0 : Number(/^oom_kill (\d+)/m.exec(textOf(file))?.[1] ?? 0);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
