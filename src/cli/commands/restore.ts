import type { GrpcCallOptions } from '../../api/grpc-client.ts';
import { Paging, type RestoreResult } from '../../proto/gen/stasis/stasis.ts';
import type { CommandOptions } from '../grammar.ts';
import { checkpointName, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { duration } from '../../units.ts';
import { restoreView } from '../view.ts';

type Options = Pick<CommandOptions, 'snapshot' | 'as' | 'requireMemory' | 'eager' | 'lazy'>;

/** What `--eager` and `--lazy` insist on. */
export function pagingOf({ eager, lazy }: Pick<Options, 'eager' | 'lazy'>): Paging {
  if (eager === true) return Paging.PAGING_EAGER;
  return lazy === true ? Paging.PAGING_LAZY : Paging.PAGING_AUTO;
}

/** `stasis restore CONTAINER` */
export async function restore(session: Session, container: string, options: Options): Promise<void> {
  const request = {
    namespace: session.globals.namespace,
    container: containerName(container),
    checkpoint: options.snapshot === undefined ? '' : checkpointName(options.snapshot),
    as: options.as === undefined ? '' : containerName(options.as),
    requireMemory: options.requireMemory ?? false,
    paging: pagingOf(options),
  };
  let restored: RestoreResult | undefined;
  const call = (options: GrpcCallOptions) => session.stasis.restore(request, options);
  await session.follow(`restore ${container}`, container, call, ({ value }) => (restored = value));
  const result = session.answer(restored);
  session.print(
    () => ({ restored: restoreView(result), warnings: session.warnings }),
    () => `${restoreText(result)}\n`,
    () => [result.container],
  );
}

/** What runs now, where it came from and what that took. */
export function restoreText(result: RestoreResult): string {
  const memory = result.lazy ? 'memory (still coming in) and disk' : 'memory and disk';
  const what = result.memory ? memory : 'disk only, the process started anew';
  const from = result.checkpoint === '' ? '' : ` from ${result.checkpoint}`;
  return `${result.container}${from}: ${what}, ${duration(result.totalNs)}, pid ${result.pid}`;
}
