// Exec sessions of a container that is to be checkpointed: the part of stasisd.
import {
  Code,
  codeOf,
  DeadlineExceeded,
  FailedPrecondition,
  messageOf,
  type StasisError,
} from '../errors.ts';
import type { Config } from '../config/config.ts';
import { SessionPolicy } from '../proto/gen/stasis/engine.ts';
import type { Host, Report } from './host.ts';
import { type Engine, fromShim } from './shim-client.ts';

/** What becomes of exec sessions, which a checkpoint does not hold: see `checkpoint.exec_sessions`. */
export type ExecSessions = Config['checkpoint']['exec_sessions'];

const policies: Readonly<Record<ExecSessions, SessionPolicy>> = {
  leave: SessionPolicy.SESSIONS_LEAVE,
  refuse: SessionPolicy.SESSIONS_REFUSE,
  wait: SessionPolicy.SESSIONS_WAIT,
  kill: SessionPolicy.SESSIONS_KILL,
};

interface Asked {
  readonly container: string;
  readonly execSessions: ExecSessions;
  readonly exit: boolean;
  readonly signal: AbortSignal;
}

/** The policy for the instant itself. Of a container that is to exit the sessions were ended before it was paused for that. */
export function policyOf({ execSessions, exit }: Pick<Asked, 'execSessions' | 'exit'>): SessionPolicy {
  return exit && execSessions !== 'leave' ? SessionPolicy.SESSIONS_REFUSE : policies[execSessions];
}

/**
 * Ends the container's exec sessions, waits for their end or refuses them, before anything else is done.
 * @throws FailedPrecondition where one is in the way, or the shim knows no such thing; DeadlineExceeded after
 *   `checkpoint.timeout`
 */
export async function endSessions(
  host: Host,
  request: Asked,
  engine: Engine | undefined,
  report: Report,
): Promise<void> {
  const { container, execSessions, signal } = request;
  if (execSessions === 'leave') return;
  if (engine === undefined) {
    report.warn(`the exec sessions of ${container} are left as they are: no shim of ours holds them`);
    return;
  }
  const leave = (): void => engine.close();
  signal.addEventListener('abort', leave, { once: true });
  try {
    const { heedsSessions, execSessions: count } = await engine.calls.describe({ id: container });
    if (!heedsSessions) throw tooOld(container);
    if (count === 0) return;
    if (execSessions === 'wait')
      report.phase(`waiting for the end of ${count === 1 ? 'an exec session' : `${count} exec sessions`}`);
    const timeoutMs = BigInt(host.config.checkpoint.timeout) * 1000n;
    await engine.calls.endSessions({ id: container, sessions: policies[execSessions], timeoutMs });
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof FailedPrecondition) throw error;
    throw sessionInTheWay(error, request) ?? fromShim(error, container);
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

/** The error for a session that the shim found in the way; undefined for other errors of the shim's. */
export function sessionInTheWay(
  error: unknown,
  { container, execSessions }: Pick<Asked, 'container' | 'execSessions'>,
): StasisError | undefined {
  if (codeOf(error) !== Code.Aborted) return undefined;
  const isLate = / has not ended within /.test(messageOf(error));
  const kind = isLate ? DeadlineExceeded : FailedPrecondition;
  const remedy = isLate
    ? 'end it yourself, give it longer with checkpoint.timeout in the configuration, or take --exec-sessions kill or leave'
    : execSessions === 'refuse'
      ? 'end it, or take --exec-sessions wait, kill or leave'
      : `let the container run: ctr tasks resume ${container}; or take --exec-sessions leave`;
  return new kind(messageOf(error), { subject: container, cause: error, reason: 'exec-session', remedy });
}

function tooOld(container: string): FailedPrecondition {
  return new FailedPrecondition(
    `the shim of container ${container} is of a version that knows no policy for exec sessions`,
    {
      subject: container,
      reason: 'shim-too-old',
      remedy: 'it is renewed when its last container ends; until then take --exec-sessions leave',
    },
  );
}
