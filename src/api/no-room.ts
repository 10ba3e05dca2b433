import { Code, codeOf, detailsOf, messageOf, ResourceExhausted } from '../errors.ts';

/** How `zfs` says it, see src/zfs/errors.ts; containerd passes our snapshotter's words on, and loses the code: `: unknown`. */
const full = /: (out of space|No space left on device|[Dd]isk quota exceeded)(: unknown)?$/;

/**
 * A pool or quota that is full in the words of who asked for the operation, instead of zfs's about a dataset; anything else as
 * it is.
 * @param what what there is no room for, such as `a clone of web`
 */
export function explainNoRoom(error: unknown, what: string, subject: string): unknown {
  const reason = full.exec(messageOf(error))?.[1];
  const code = codeOf(error);
  if (reason === undefined || (code !== Code.ResourceExhausted && code !== Code.Unknown)) return error;
  if (detailsOf(error)?.reason !== undefined) return error;
  return new ResourceExhausted(`the pool or a quota has no room for ${what}`, {
    subject,
    cause: new Error(reason),
    reason: 'no-room',
    remedy: 'see stasis df for what takes it; remove checkpoints with stasis rm, or raise the quota',
  });
}
