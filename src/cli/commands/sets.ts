// The commands that take several containers: a set from one instant, and bringing several back.
import type { GrpcCallOptions } from '../../api/grpc-client.ts';
import { InvalidArgument, StasisError } from '../../errors.ts';
import type { Checkpoint, RestoreFailure, RestoreResult } from '../../proto/gen/stasis/stasis.ts';
import { errorOf } from '../failure.ts';
import { faultView } from '../fault.ts';
import type { CommandOptions } from '../grammar.ts';
import { checkpointName, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { oneLine } from '../text.ts';
import { count } from '../../units.ts';
import { restoreView } from '../view.ts';
import { execSessionsOf, precopyOf, type PrecopyOptions, printSet } from './checkpoint.ts';
import { pagingOf, restoreText } from './restore.ts';

type TakeOptions = PrecopyOptions &
  Pick<
    CommandOptions,
    'name' | 'exit' | 'diskOnly' | 'requireMemory' | 'wait' | 'execSessions' | 'label' | 'pod'
  >;

/** `stasis checkpoint CONTAINER…`, `--label KEY=VALUE`, `--pod ID` */
export async function checkpointSet(
  session: Session,
  containers: readonly string[],
  options: TakeOptions,
): Promise<void> {
  const labels = options.label ?? [];
  const pod = options.pod === undefined ? '' : containerName(options.pod);
  if ([containers.length > 0, labels.length > 0, pod !== ''].filter(Boolean).length !== 1) {
    throw new InvalidArgument('a checkpoint is of named containers, of a pod or of a label', {
      reason: 'usage',
      remedy: 'give one of the three: names, --pod ID or --label KEY=VALUE',
    });
  }
  const request = {
    namespace: session.globals.namespace,
    containers: containers.map(containerName),
    ...{ labels, pod },
    name: options.name === undefined ? '' : checkpointName(options.name),
    exit: options.exit ?? false,
    diskOnly: options.diskOnly ?? false,
    requireMemory: options.requireMemory ?? false,
    noWait: options.wait === false,
    execSessions: execSessionsOf(options.execSessions),
    precopy: precopyOf(options),
  };
  const what = pod || [...containers, ...labels].join(' ');
  const taken: Checkpoint[] = [];
  const call = (options: GrpcCallOptions) => session.stasis.checkpointSet(request, options);
  await session.follow(`checkpoint ${what}`, containers[0] ?? what, call, ({ value }) => taken.push(value));
  session.answer(taken[0]);
  printSet(session, taken);
}

type RestoreOptions = Pick<CommandOptions, 'set' | 'snapshot' | 'requireMemory' | 'eager' | 'lazy'>;

/** `stasis restore --set NAME`, `stasis restore CONTAINER CONTAINER…`: each is printed as it runs, or fails. */
export async function restoreSet(
  session: Session,
  containers: readonly string[],
  options: RestoreOptions,
): Promise<void> {
  if (containers.length === 0 && options.set === undefined) {
    throw new InvalidArgument('no container and no set named', {
      reason: 'usage',
      remedy: 'name containers, or a set with --set: see `stasis ls`',
    });
  }
  const request = {
    namespace: session.globals.namespace,
    set: options.set === undefined ? '' : checkpointName(options.set),
    containers: containers.map(containerName),
    checkpoint: options.snapshot === undefined ? '' : checkpointName(options.snapshot),
    requireMemory: options.requireMemory ?? false,
    paging: pagingOf(options),
  };
  const { json, quiet } = session.globals;
  const { stdout } = session.host;
  const restored: RestoreResult[] = [];
  const failed: RestoreFailure[] = [];
  const what = options.set === undefined ? containers.join(' ') : `set ${options.set}`;
  const call = (options: GrpcCallOptions) => session.stasis.restoreSet(request, options);
  const view = () => ({
    restored: restored.map(restoreView),
    failed: failed.map((failure) => ({
      container: failure.container,
      checkpoint: failure.checkpoint || null,
      error: faultView(errorOf(failure, failure.container)),
    })),
  });
  await session.follow(`restore ${what}`, containers[0] ?? what, call, (update) => {
    if (update.$case === 'result') {
      restored.push(update.value);
      if (!json) stdout.write(`${quiet ? update.value.container : restoreText(update.value)}\n`);
    } else {
      failed.push(update.value);
      if (!json && !quiet) stdout.write(`${failureText(update.value)}\n`);
    }
    session.partial = view();
  });
  const [first] = failed;
  if (first === undefined) session.answer(restored[0]);
  if (!json && !quiet) stdout.write(`${summary(what, restored.length, failed.length)}\n`);
  if (first !== undefined) throw notAll(restored.length, failed);
  if (json) stdout.write(`${JSON.stringify({ ...view(), warnings: session.warnings }, null, 2)}\n`);
}

function failureText({ container, checkpoint, message }: RestoreFailure): string {
  const from = checkpoint === '' ? '' : ` from ${checkpoint}`;
  return `${container}${from}: failed, and is as it was: ${oneLine(message)}`;
}

function summary(what: string, restored: number, failed: number): string {
  return `${what}: ${restored} restored${failed === 0 ? '' : `, ${failed} failed`}`;
}

/** The error of the whole call: its code is that of the first that failed. */
function notAll(restored: number, failed: readonly RestoreFailure[]): StasisError {
  const names = failed.map(({ container }) => container).join(', ');
  const [first] = failed;
  const error = first === undefined ? undefined : errorOf(first, first.container);
  return new StasisError(
    error?.code ?? 2,
    `${count(failed.length, 'container')} of ${restored + failed.length} not restored: ${names}`,
    { cause: error, subject: first?.container, reason: 'not-all-restored', remedy: error?.remedy },
  );
}
