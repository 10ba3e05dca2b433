// libuv's threads, on which everything waits that may: threadpool in its manual.
import { Lane } from './lane.ts';

/** What libuv makes where nothing is said. */
const USUAL = 4;
const WIDE = 16;
/** Left alone by calls that may not come back, for everything else: a process that is asked for, a file in memory. */
const SPARED = 4;

const variable = 'UV_THREADPOOL_SIZE';

let mostSlow = Infinity;

/**
 * Makes the pool wide enough that a disk which does not answer takes part of it only. A call to such a disk keeps its thread until
 * the disk answers, and with all threads gone no other container is served. To be called before anything is done on the pool,
 * whose size libuv reads then, and followed by `poolMade` once something was: programs that this one starts are not to inherit
 * the variable. A size that is set from outside stays.
 */
export function widenPool(env: NodeJS.ProcessEnv = process.env): void {
  if (env[variable] !== undefined) {
    mostSlow = Math.max(1, (Number(env[variable]) || USUAL) - SPARED);
    return;
  }
  env[variable] = String(WIDE);
  mostSlow = WIDE - SPARED;
  widened = true;
}

let widened = false;

/** See `widenPool`. */
export function poolMade(env: NodeJS.ProcessEnv = process.env): void {
  if (widened) delete env[variable];
  widened = false;
}

const lane = new Lane(() => mostSlow);

/** Runs what may wait for a disk. Where too much of that waits already, it waits with it, instead of taking the last threads. */
export function onDisk<T>(job: () => Promise<T>): Promise<T> {
  return lane.run(job);
}
