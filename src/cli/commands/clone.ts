import { MAX_CLONES } from '../../checkpoint/names.ts';
import type { GrpcCallOptions } from '../../api/grpc-client.ts';
import { InvalidArgument } from '../../errors.ts';
import type { Checkpoint, CloneUpdate, RestoreResult } from '../../proto/gen/stasis/stasis.ts';
import type { CommandOptions } from '../grammar.ts';
import { checkpointName, clonePattern, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { checkpointView, restoreView } from '../view.ts';
import { checkpointText } from './checkpoint.ts';
import { pagingOf, restoreText } from './restore.ts';

type Options = Pick<CommandOptions, 'from' | 'count' | 'name' | 'requireMemory' | 'eager' | 'lazy'>;

/** `stasis clone CONTAINER`: each clone is printed as it runs, since a hundred take a while. */
export async function clone(session: Session, container: string, options: Options): Promise<void> {
  const count = parseCount(options.count ?? '1');
  const request = {
    namespace: session.globals.namespace,
    container: containerName(container),
    from: options.from === undefined ? '' : checkpointName(options.from),
    count,
    name: options.name === undefined ? '' : clonePattern(options.name, container, count),
    requireMemory: options.requireMemory ?? false,
    paging: pagingOf(options),
  };
  const { json, quiet } = session.globals;
  const { stdout } = session.host;
  const clones: RestoreResult[] = [];
  let source: Checkpoint | undefined;
  const view = () => ({
    checkpoint: source === undefined ? null : checkpointView(source),
    clones: clones.map(restoreView),
  });
  const call = (options: GrpcCallOptions) => session.stasis.clone(request, options);
  const take = (update: Exclude<NonNullable<CloneUpdate['update']>, { $case: 'progress' }>): void => {
    if (update.$case === 'checkpoint') {
      source = update.value;
      // One that was there already is no news.
      if (!json && !quiet && options.from === undefined) stdout.write(`${checkpointText(source)}\n`);
    } else {
      clones.push(update.value);
      if (!json) stdout.write(`${quiet ? update.value.container : restoreText(update.value)}\n`);
    }
  };
  try {
    await session.follow(`clone ${container}`, container, call, take);
  } catch (error) {
    if (clones.length > 0)
      session.warn('it is all of them or none: the clones that ran already are removed again');
    throw error;
  }
  session.answer(clones[0]);
  if (json) stdout.write(`${JSON.stringify({ ...view(), warnings: session.warnings }, null, 2)}\n`);
}

function parseCount(text: string): number {
  const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= MAX_CLONES) return count;
  throw new InvalidArgument(`--count ${JSON.stringify(text)} is not a number of clones`, {
    subject: text,
    remedy: `give a whole number from 1 to ${MAX_CLONES}`,
  });
}
