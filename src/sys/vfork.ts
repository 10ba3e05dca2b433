import { setTimeout as sleep } from 'node:timers/promises';
import type { Freezer } from './cgroup-freezer.ts';
import { findSleeper } from './wait-channel.ts';

/**
 * How often a cgroup is let run for a moment, and how long: a child needs microseconds to its exec, unless the machine is
 * busy or the child waits for something itself. Two seconds in all are less than the ten for which
 * CRIU would let the container stand still in vain: that was seen on a machine under load with a quarter of a second here.
 */
const ATTEMPTS = 24;
const FIRST_BREATH_MS = 1;
const LONGEST_BREATH_MS = 100;

/**
 * Freezes a cgroup at an instant when none of its tasks is inside vfork(2). CRIU cannot dump one that is: the parent
 * waits uninterruptibly for its child to exec, the child is held by CRIU, and CRIU gives up after ten seconds. Shells
 * and posix_spawn(3) start every program so; a container that does it all the time is met there now and then.
 * Where a child does not move on the cgroup stays frozen as it is.
 *
 * @param pids processes of the cgroup
 * @throws what `freeze` throws
 */
export async function freezeOutsideVfork(
  freezer: Pick<Freezer, 'freeze' | 'thaw'>,
  pids: () => Promise<readonly number[]>,
  waits: (pids: readonly number[]) => boolean = waitsForVfork,
): Promise<void> {
  let breath = FIRST_BREATH_MS;
  for (let attempt = 1; ; attempt++) {
    await freezer.freeze();
    if (attempt === ATTEMPTS || !waits(await pids())) return;
    await freezer.thaw();
    await sleep(breath);
    breath = Math.min(breath * 2, LONGEST_BREATH_MS);
  }
}

/** Where the kernel's task sleeps that waits for its vfork child, by name of the function since Linux 4. */
const VFORK = /^(?:wait_for_vfork_done|kernel_clone|_do_fork|do_fork)\b/;

/**
 * Whether a thread of one of these processes, which stand still, waits for its vfork child: proc_pid_wchan(5). Nothing is
 * known of a kernel that hides the name.
 */
export function waitsForVfork(pids: readonly number[]): boolean {
  return findSleeper(pids, VFORK) !== undefined;
}
