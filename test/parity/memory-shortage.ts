import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const V1 = '/sys/fs/cgroup/memory';
const isV1 = existsSync(V1);
const root = isV1 ? V1 : '/sys/fs/cgroup';
const LIMIT = isV1 ? 'memory.limit_in_bytes' : 'memory.max';
const UNLIMITED = isV1 ? '-1' : 'max';
const USAGE = isV1 ? 'memory.usage_in_bytes' : 'memory.current';
/** What is left to it: less than a process needs for its next few pages. */
const BYTES = 256 << 10;
/** When a worker that asks for no memory is let go on. */
const PATIENCE_MS = 5000;
const POLL_MS = 5;

/** A cgroup in which there is no memory to be had. */
export class MemoryShortage {
  readonly #folder = join(root, `stasis-parity-${process.pid}`);

  constructor() {
    if (!isV1) writeFileSync(join(root, 'cgroup.subtree_control'), '+memory');
    mkdirSync(this.#folder);
  }

  /** The process is in the cgroup, where nothing lacks yet. */
  admit(pid: number): void {
    writeFileSync(join(this.#folder, LIMIT), UNLIMITED);
    writeFileSync(join(this.#folder, 'cgroup.procs'), String(pid));
  }

  /** The kernel ends the process when it asks for memory. @returns whether it has */
  async befall(pid: number): Promise<boolean> {
    // The kernel sets no limit below what is used already.
    const used = Number(readFileSync(join(this.#folder, USAGE), 'utf8'));
    writeFileSync(join(this.#folder, LIMIT), String(used + BYTES));
    try {
      writeFileSync(join(this.#folder, 'cgroup.procs'), String(pid));
      const deadline = performance.now() + PATIENCE_MS;
      while (isAlive(pid) && performance.now() < deadline) await sleep(POLL_MS);
      return !isAlive(pid);
    } catch {
      return false; // it has ended by itself
    } finally {
      this.#relent();
    }
  }

  /** What it has started meanwhile, and itself where it is still there, have what they need. */
  #relent(): void {
    writeFileSync(join(this.#folder, LIMIT), UNLIMITED);
    const pids = readFileSync(join(this.#folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean);
    for (const pid of pids) {
      try {
        writeFileSync(join(root, 'cgroup.procs'), pid);
      } catch {
        // It has ended.
      }
    }
  }

  close(): void {
    this.#relent();
    rmdirSync(this.#folder);
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
