import { checkpointName, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { printable } from '../text.ts';
import { size } from '../../units.ts';

/** `stasis rm CONTAINER N…` */
export async function rm(session: Session, container: string, names: readonly string[]): Promise<void> {
  const { removed } = await session.stasis.remove(
    {
      namespace: session.globals.namespace,
      container: containerName(container),
      checkpoints: [...new Set(names.map(checkpointName))],
    },
    session.options,
  );
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
}
