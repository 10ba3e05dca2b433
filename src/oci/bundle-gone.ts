import { existsSync } from 'node:fs';
import { FailedPrecondition, hasErrno } from '../errors.ts';

/** What a file in a bundle could not be written for: where somebody has taken the bundle away, that is said. */
export function explainGone(error: unknown, id: string, bundle: string): unknown {
  if (!hasErrno(error, 'ENOENT') || existsSync(bundle)) return error;
  return new FailedPrecondition(`the bundle ${bundle} of ${id} is gone`, {
    subject: id,
    cause: error,
    remedy: 'the container can still be asked, killed and deleted; to enter or change it, create it again',
  });
}
