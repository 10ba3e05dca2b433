// Exec sessions at a checkpoint: what joined a container is beside its first process, and no dump holds it.
import type { SessionTerms } from '../../src/checkpoint/engine-service.ts';
import { Aborted, Cancelled } from '../../src/errors.ts';
import { SessionPolicy } from '../../src/proto/gen/stasis/engine.ts';
import type { Freezer } from '../../src/sys/cgroup-freezer.ts';
import { descendantsOf } from '../../src/sys/process-tree.ts';
import { freezeOutsideVfork } from '../../src/sys/vfork.ts';
import { sendIfAlive } from '../process/init.ts';
import type { Queue } from './queue.ts';

const SIGKILL = 9;

export interface ExecSession {
  readonly id: string;
  readonly pid: number;
  readonly state: { readonly name: string };
  wait(signal: AbortSignal): Promise<void>;
}

/** What of a container its sessions are ended by. */
export interface Sessions {
  readonly id: string;
  readonly queue: Pick<Queue, 'run'>;
  readonly execs: ReadonlyMap<string, ExecSession>;
  readonly accounting: { freezer(): Freezer; pids(): Promise<number[]> };
}

/** Those that run. */
export function sessionsOf({ execs }: Pick<Sessions, 'execs'>): ExecSession[] {
  return [...execs.values()].filter(({ state }) => state.name === 'running');
}

/**
 * Runs alone in the container's queue, where no exec can begin, and as its exec sessions are to be: left alone, not there, at
 * their end, or killed. While they are waited for the queue is free: others may come and go meanwhile.
 * @throws Aborted where a session is in the way: refused, not over in time, or in a container that stands still; Cancelled
 */
export async function runWithoutSessions<T>(
  container: Sessions,
  terms: SessionTerms,
  run: () => Promise<T>,
): Promise<T> {
  const { policy, timeoutMs, signal } = terms;
  if (policy === SessionPolicy.SESSIONS_WAIT) {
    const deadline = AbortSignal.timeout(timeoutMs);
    for (;;) {
      await ended(container, signal, deadline, timeoutMs);
      const tried = await container.queue.run(async () =>
        sessionsOf(container).length > 0 ? undefined : { result: await run() },
      );
      if (tried !== undefined) return tried.result;
    }
  }
  return container.queue.run(async () => {
    if (policy === SessionPolicy.SESSIONS_KILL) await killSessions(container, signal, timeoutMs);
    const [first] = sessionsOf(container);
    if (first !== undefined && policy !== SessionPolicy.SESSIONS_LEAVE)
      throw inTheWay(container, first, 'runs');
    return run();
  });
}

async function ended(
  container: Sessions,
  signal: AbortSignal,
  deadline: AbortSignal,
  timeoutMs: number,
): Promise<void> {
  const either = AbortSignal.any([signal, deadline]);
  for (;;) {
    const [first] = sessionsOf(container);
    if (first === undefined) return;
    if (await container.accounting.freezer().isFrozen()) throw standsStill(container, first);
    try {
      await first.wait(either);
    } catch (error) {
      if (signal.aborted) throw new Cancelled(`nobody waits any more for exec sessions of ${container.id}`);
      if (!deadline.aborted) throw error;
      throw inTheWay(container, first, `has not ended within ${timeoutMs / 1000} s`);
    }
  }
}

/**
 * Kills the sessions with all that descends from them: read while they stand still, as one that forks meanwhile would leave its
 * child to the first process, and the checkpoint would hold it.
 */
async function killSessions(container: Sessions, signal: AbortSignal, timeoutMs: number): Promise<void> {
  const sessions = sessionsOf(container);
  const [first] = sessions;
  if (first === undefined) return;
  const { accounting } = container;
  const freezer = accounting.freezer();
  if (await freezer.isFrozen()) throw standsStill(container, first); // in cgroup v1 the killed do not die there
  await freezeOutsideVfork(freezer, () => accounting.pids());
  try {
    const roots = sessions.map(({ pid }) => pid);
    for (const pid of descendantsOf(roots, await accounting.pids())) sendIfAlive(pid, SIGKILL);
  } finally {
    await freezer.thaw();
  }
  await ended(container, signal, AbortSignal.timeout(timeoutMs), timeoutMs);
}

function inTheWay({ id }: Sessions, session: ExecSession, how: string): Aborted {
  return new Aborted(`the exec session ${session.id} of ${id} ${how}`, { subject: id });
}

function standsStill({ id }: Sessions, session: ExecSession): Aborted {
  return new Aborted(`${id} is paused, so its exec session ${session.id} cannot end`, { subject: id });
}
