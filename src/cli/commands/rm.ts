import { Cancelled } from '../../errors.ts';
import { checkpointName, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { printable } from '../text.ts';
import { size } from '../../units.ts';

/** `stasis rm CONTAINER N…` @throws Cancelled where the user cancelled before all were removed, after saying which are */
export async function rm(session: Session, container: string, names: readonly string[]): Promise<void> {
  const checkpoints = [...new Set(names.map(checkpointName))];
  const { namespace } = session.globals;
  const request = { namespace, container: containerName(container), checkpoints };
  const { removed } = await session.finish((options) => session.stasis.remove(request, options));
  const kept = checkpoints.filter((name) => !removed.some((one) => one.name === name));
  if (kept.length === 0 && session.host.signal.aborted)
    session.warn('it was done before it could be cancelled');
  session.print(
    () => ({
      removed: removed.map(({ name, freedBytes, waitsFor }) => ({
        name,
        freedBytes: Number(freedBytes),
        waitsFor,
      })),
    }),
    () =>
      removed
        .map(({ name, freedBytes, waitsFor }) => {
          // 0 also where the space is not known yet, since the pool frees it later.
          const freed = freedBytes > 0n ? `, ${size(freedBytes)} freed` : '';
          const waits = waitsFor.length === 0 ? '' : `; its data stays for ${waitsFor.join(', ')}`;
          return `${printable(`${container}@${name}: removed${freed}${waits}`)}\n`;
        })
        .join(''),
    () => removed.map(({ name }) => name),
  );
  if (kept.length === 0) return;
  throw new Cancelled(`cancelled: ${kept.join(', ')} of ${container} not removed`, {
    subject: container,
    remedy: `look at it with \`stasis ls ${container}\``,
  });
}
