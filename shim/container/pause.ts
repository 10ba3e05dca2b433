import { readFileSync } from 'node:fs';
import { Code, hasErrno, StasisError } from '../../src/errors.ts';
import type { Freezer } from '../../src/sys/cgroup-freezer.ts';
import { freezeOutsideVfork } from '../../src/sys/vfork.ts';
import type { InitProcess } from '../process/init.ts';
import { initStates } from '../process/state.ts';

/** What of a container a pause looks at. */
export interface Pausable {
  readonly init: Pick<InitProcess, 'pid' | 'state'>;
  readonly accounting: { freezer(): Freezer; pids(): Promise<number[]> };
}

/**
 * Stands a running container still. One that ends meanwhile, or was killed before, is let go again: nobody could delete a
 * container whose cgroup is frozen, and in cgroup v1 the killed do not die there.
 * @throws StasisError with the status Unknown where it does not run, as containerd's own shim answers
 */
export async function pause(
  { init, accounting }: Pausable,
  isDoomed: (pid: number) => boolean = willDie,
): Promise<void> {
  init.state.require('pause');
  const freezer = accounting.freezer();
  // A client may be about to checkpoint it.
  await freezeOutsideVfork(freezer, () => accounting.pids());
  const isThere = (await accounting.pids()).includes(init.pid);
  if (isThere && init.state.name === 'running' && !isDoomed(init.pid)) {
    init.state.to('paused');
    return;
  }
  await freezer.thaw();
  init.state.require('pause');
  throw new StasisError(Code.Unknown, initStates.stopped.refuses.pause ?? '');
}

/** Lets a container that has ended go, whatever froze it: an OCI runtime calls it paused, and refuses to delete it. */
export async function thawEnded({ accounting }: Pick<Pausable, 'accounting'>): Promise<void> {
  const freezer = accounting.freezer();
  if ((await freezer.isFrozen()) && (await accounting.pids()).length === 0) await freezer.thaw();
}

/** SIGKILL, in the masks of signals of proc_pid_status(5). */
const KILL_BIT = 1n << 8n;

/** Whether SIGKILL waits for a process, or it is gone. */
function willDie(pid: number): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)].some(
      ([, mask]) => (BigInt(`0x${mask}`) & KILL_BIT) !== 0n,
    );
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ESRCH')) return true;
    throw error;
  }
}
