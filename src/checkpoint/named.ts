import { Code, codeOf, messageOf, StasisError } from '../errors.ts';

/**
 * Gives an error of containerd's own, which knows neither what was being done nor what comes next, the container's name and both.
 * @param what went wrong, and how it stands now; containerd's words come after it
 * @returns one of ours as it is
 */
export function named(id: string, what: string, reason: string, error: unknown): unknown {
  if (error instanceof StasisError && (error.subject ?? error.remedy) !== undefined) return error;
  return new StasisError(codeOf(error), `container ${id} ${what}: ${messageOf(error)}`, {
    subject: id,
    reason,
    cause: error,
    remedy:
      codeOf(error) === Code.Unavailable
        ? 'the same command again; where that fails as well, see whether containerd and the shim answer: stasis info'
        : `see stasisd's log, and what else is done to the container: stasis ls ${id}`,
  });
}
