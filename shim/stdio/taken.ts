import { setTimeout as sleep } from 'node:timers/promises';
import { isCrowded } from '../../src/sys/crowd.ts';

/** How often it is looked whether a client has read on, in milliseconds. */
const POLL_MS = 1;
/**
 * A client of which so many looks in a row find that it has read nothing is not reading. Only those count at which it could have had a
 * processor: on one with twenty threads to run this process is woken every millisecond or two, and a client that has more to do than that not for 100 ms.
 */
const IDLE_LOOKS = 100;
/** And one that reads without end, or has no processor, is not waited for longer than this. */
const MOST_LOOKS = 500;

/** One way of a process's output. */
export interface OutputWay {
  /** Moves on what can be moved. @returns how many bytes have not reached the client: those that the process has written, and no others */
  pending(): number;
}

/**
 * Waits until clients have read what a process has written, as long as they do read: ctr of containerd 1.6 closes its ends of the FIFOs as
 * soon as it is told of the end, read or not (Delete in its task.go), and what they still hold is lost. Resolves at once where
 * nothing waits, and a moment later where nobody reads.
 * @param crowded whether the client may not have had a processor
 */
export async function untilTaken(ways: readonly OutputWay[], crowded = isCrowded): Promise<void> {
  let left = sum(ways);
  let idle = 0;
  for (let looks = 0; left > 0 && idle < IDLE_LOOKS && looks < MOST_LOOKS; looks++) {
    await sleep(POLL_MS);
    const next = sum(ways);
    if (next < left) idle = 0;
    else if (!crowded()) idle++;
    left = next;
  }
}

function sum(ways: readonly OutputWay[]): number {
  return ways.reduce((total, way) => total + way.pending(), 0);
}
