import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Whether other threads want a processor than can have one, so that somebody who has something to do may not have come to it; proc(5), loadavg. */
export function isCrowded(): boolean {
  const runnable = /(\d+)\/\d+ \d+\s*$/.exec(readFileSync('/proc/loadavg', 'utf8'))?.[1];
  return Number(runnable) - 1 > availableParallelism(); // this one runs
}
