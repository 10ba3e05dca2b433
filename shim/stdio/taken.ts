import { setTimeout as sleep } from 'node:timers/promises';

/** How often it is looked whether a client has read on, in milliseconds. */
const POLL_MS = 1;
/** A client that reads nothing for so long is not reading. */
const IDLE_MS = 100;
/** And one that reads without end is not waited for longer than this. */
const MOST_MS = 500;

/** One way of a process's output. */
export interface OutputWay {
  /** Moves on what can be moved. @returns how many bytes have not reached the client: those that the process has written, and no others */
  pending(): number;
}

/**
 * Waits until clients have read what a process has written, as long as they do read: ctr of containerd 1.6 closes its ends of the FIFOs as
 * soon as it is told of the end, read or not (Delete in its task.go), and what they still hold is lost. Resolves at once where
 * nothing waits, and a moment later where nobody reads.
 */
export async function untilTaken(ways: readonly OutputWay[]): Promise<void> {
  let left = sum(ways);
  const end = performance.now() + MOST_MS;
  let last = performance.now();
  while (left > 0) {
    await sleep(POLL_MS);
    const now = performance.now();
    const next = sum(ways);
    if (next < left) last = now;
    left = next;
    if (now - last >= IDLE_MS || now >= end) return;
  }
}

function sum(ways: readonly OutputWay[]): number {
  return ways.reduce((total, way) => total + way.pending(), 0);
}
