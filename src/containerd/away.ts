import { setTimeout as sleep } from 'node:timers/promises';
import { Code, codeOf } from '../errors.ts';

/** systemd starts a containerd that died within seconds. Longer, and the caller is told that it is not back. */
const RETURN_TIMEOUT_MS = 60_000;
const POLL_MS = 200;

/**
 * For what has to be done although containerd went away: runs a work that may be run again, and as long as containerd is not
 * there, again. All works given to one function share its patience, which begins with the first that fails.
 */
export function untilBack(
  timeoutMs = RETURN_TIMEOUT_MS,
  pollMs = POLL_MS,
): (work: () => Promise<void>) => Promise<void> {
  let deadline: number | undefined;
  return async (work) => {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        deadline ??= performance.now() + timeoutMs;
        if (codeOf(error) !== Code.Unavailable || performance.now() > deadline) throw error;
      }
      await sleep(pollMs);
    }
  };
}
