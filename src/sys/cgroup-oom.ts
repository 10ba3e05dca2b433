import { watch, type FSWatcher } from 'node:fs';
import { join } from 'node:path';
import type { Cgroup } from './cgroup.ts';
import type { CgroupStats } from './cgroup-stats.ts';

export interface OomWatch {
  /** Looks now: a task's exit must not be reported before the kill that caused it. Safe after close. */
  check(): void;
  /** How many kills were found so far. */
  readonly kills: bigint;
  close(): void;
}

/** v1 tells of kills through an eventfd alone, which Node cannot wait for: the counter is read at this interval. */
const INTERVAL_MS = 1_000;

/**
 * Calls `onOom` once for each look that finds new kills. v2: inotify on `memory.events`, which the kernel signals
 * (cgroup-v2.rst). v1: one timer for all cgroups.
 * @param known how many kills are no news
 */
export function watchOom(cgroup: Cgroup, stats: CgroupStats, onOom: () => void, known = 0n): OomWatch {
  const check = (): void => {
    const kills = stats.oomKills();
    if (kills <= known) return;
    known = kills;
    onOom();
  };
  const stop = cgroup.version === 2 ? watchFile(cgroup, check) : poll(check);
  return {
    check,
    get kills() {
      return known;
    },
    close: stop,
  };
}

function watchFile(cgroup: Cgroup, look: () => void): () => void {
  let watcher: FSWatcher;
  try {
    watcher = watch(join(cgroup.folders.get('') ?? '', 'memory.events'), { persistent: false }, look);
  } catch {
    return poll(look); // no memory controller, or no inotify watch left
  }
  watcher.on('error', look);
  return () => watcher.close();
}

const polled = new Set<() => void>();
let timer: NodeJS.Timeout | undefined;

function poll(look: () => void): () => void {
  polled.add(look);
  timer ??= setInterval(() => {
    for (const each of polled) each();
  }, INTERVAL_MS).unref();
  return () => {
    polled.delete(look);
    if (polled.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}
