import type { GrpcCallOptions } from '../../api/grpc-client.ts';
import { InvalidArgument } from '../../errors.ts';
import {
  type Checkpoint,
  DiskKind,
  ExecSessions,
  MemoryKind,
  type Precopy,
} from '../../proto/gen/stasis/stasis.ts';
import type { CommandOptions } from '../grammar.ts';
import { memoryText, storedText } from '../lineage.ts';
import { checkpointName, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { count, duration, size } from '../../units.ts';
import { checkpointView } from '../view.ts';

type Options = PrecopyOptions &
  Pick<CommandOptions, 'name' | 'exit' | 'diskOnly' | 'requireMemory' | 'wait' | 'execSessions'>;

/** `stasis checkpoint CONTAINER` */
export async function checkpoint(session: Session, container: string, options: Options): Promise<void> {
  const request = {
    namespace: session.globals.namespace,
    container: containerName(container),
    name: options.name === undefined ? '' : checkpointName(options.name),
    exit: options.exit ?? false,
    diskOnly: options.diskOnly ?? false,
    requireMemory: options.requireMemory ?? false,
    noWait: options.wait === false,
    execSessions: execSessionsOf(options.execSessions),
    precopy: precopyOf(options),
  };
  const taken: Checkpoint[] = [];
  const call = (options: GrpcCallOptions) => session.stasis.checkpoint(request, options);
  await session.follow(`checkpoint ${container}`, container, call, ({ value }) => taken.push(value));
  if (taken.length > 1) return printSet(session, taken); // a sandbox stands for its pod
  const result = session.answer(taken[0]);
  session.print(
    () => ({ checkpoint: checkpointView(result), warnings: session.warnings }),
    () => `${checkpointText(result)}\n`,
    () => [result.name],
  );
}

const sessionKinds: Readonly<Record<string, ExecSessions>> = {
  leave: ExecSessions.EXEC_SESSIONS_LEAVE,
  refuse: ExecSessions.EXEC_SESSIONS_REFUSE,
  wait: ExecSessions.EXEC_SESSIONS_WAIT,
  kill: ExecSessions.EXEC_SESSIONS_KILL,
};

/** `--exec-sessions` as the API has it; without it, as stasisd is configured. */
export function execSessionsOf(chosen: string | undefined): ExecSessions {
  return sessionKinds[chosen ?? ''] ?? ExecSessions.EXEC_SESSIONS_DEFAULT;
}

export type PrecopyOptions = Pick<CommandOptions, 'precopy' | 'precopyRounds' | 'precopyGoal'>;

/** `--precopy` and what belongs to it, as the API has it. @throws InvalidArgument for what is no number */
export function precopyOf(options: PrecopyOptions): Precopy | undefined {
  if (options.precopy !== true) return undefined;
  const { precopyRounds = '', precopyGoal } = options;
  if (precopyRounds !== '' && !/^[1-9]\d?$/.test(precopyRounds))
    throw notRead('--precopy-rounds', precopyRounds);
  if (precopyGoal !== undefined && !/^\d{1,9}(\.\d+)?$/.test(precopyGoal))
    throw notRead('--precopy-goal', precopyGoal);
  const goalBytes =
    precopyGoal === undefined ? undefined : BigInt(Math.round(Number(precopyGoal) * 1024 * 1024));
  return { rounds: Number(precopyRounds), goalBytes };
}

function notRead(option: string, text: string): InvalidArgument {
  return new InvalidArgument(`"${text}" is no number for ${option}`, {
    subject: option,
    reason: 'usage',
    remedy: option === '--precopy-goal' ? 'give MiB, such as 16 or 0.5' : 'give rounds, 1 to 16',
  });
}

/** What was taken, and how long the container stood still for it. */
export function checkpointText(taken: Checkpoint): string {
  const disks = {
    [DiskKind.DISK_SNAPSHOT]: 'disk snapshot',
    [DiskKind.DISK_DIFF]: 'disk diff',
    [DiskKind.DISK_NONE]: 'no disk',
    [DiskKind.UNRECOGNIZED]: 'disk',
  };
  const parts = [memoryText(taken)];
  if (taken.memory !== MemoryKind.MEMORY_NONE || taken.disk !== DiskKind.DISK_SNAPSHOT)
    parts.push(disks[taken.disk]);
  if (taken.writtenBytes > 0n) parts.push(`written ${size(taken.writtenBytes)}`);
  if (taken.unchangedSince !== '')
    parts.push(`unchanged since ${taken.unchangedSince}, so nothing was written`);
  if (taken.timings !== undefined) {
    if (taken.unchangedSince === '' && taken.timings.frozenNs > 0n)
      parts.push(`frozen ${duration(taken.timings.frozenNs)}`);
    parts.push(`total ${duration(taken.timings.totalNs)}`);
  }
  const stored = storedText(taken);
  if (stored !== '') parts.push(stored);
  return `${taken.container}@${taken.name}: ${parts.join(', ')}`;
}

/** The members of a set, and the set. */
export function printSet(session: Session, taken: readonly Checkpoint[]): void {
  const [first] = taken;
  const name = first?.name ?? '';
  const longest = taken.reduce((most, { timings }) => {
    const frozen = timings?.frozenNs ?? 0n;
    return frozen > most ? frozen : most;
  }, 0n);
  session.print(
    () => ({
      set: { name, id: first?.setId ?? '' },
      checkpoints: taken.map(checkpointView),
      warnings: session.warnings,
    }),
    () =>
      `${taken.map((one) => `${checkpointText(one)}\n`).join('')}` +
      `set ${name}: ${count(taken.length, 'container')} of one instant, frozen ${duration(longest)} at most\n`,
    () => [name],
  );
}
