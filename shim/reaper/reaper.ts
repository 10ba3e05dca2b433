import { channel } from 'node:diagnostics_channel';
import { ChildProcess } from 'node:child_process';
import { hasErrno } from '../../src/errors.ts';
import { wallTime, type WallTime } from '../../src/sys/clock.ts';
import { peekExited, reap } from '../../src/sys/wait.ts';

/** How a process ended. */
export interface Exit {
  readonly pid: number;
  /** Exit code, or 128 + signal. */
  readonly status: number;
  /** Name of the signal that ended it. */
  readonly signal?: string;
  readonly at: WallTime;
}

/**
 * A claim on processes that are about to appear: what exits while it is open is kept until somebody asks for it by
 * pid, since a process may end before its starter has read its pid.
 */
export interface Expectation {
  /** Calls back once with the end of a process, later in any case than this call returns. */
  claim(pid: number, onExit: (exit: Exit) => void): void;
  close(): void;
}

export interface Reaper {
  expect(): Expectation;
  /** Calls back once with the end of a child that was started in this very turn, so that its pid is nobody else's. */
  child(pid: number, onExit: (exit: Exit) => void): void;
  /** Nobody will ask any more how a claimed process has ended: its end is written down, and its container's book is closed. */
  forget(pid: number): void;
}

/**
 * Reaps the processes that runtimes leave to this subreaper, and any orphan of theirs.
 *
 * INVARIANTS
 * - A child that child_process started is never reaped here: libuv does that, and must see its status.
 * - Each exit is handed over at most once; those that nobody claimed are forgotten when no expectation is open, so
 *   that a pid that is used again cannot meet an old exit.
 */
export class ChildReaper implements Reaper {
  readonly #ours = new Set<ChildProcess>();
  readonly #watched = new Map<number, (exit: Exit) => void>();
  readonly #early = new Map<number, Exit>();
  #expectations = 0;
  #again: NodeJS.Immediate | undefined;
  readonly #onSpawn = (message: unknown): void => {
    const { process: child } = message as { process: ChildProcess };
    this.#ours.add(child);
    child.once('exit', () => this.#ours.delete(child));
    child.once('error', () => this.#ours.delete(child));
  };
  readonly #onSignal = (): void => this.#collect();

  start(): this {
    channel('child_process').subscribe(this.#onSpawn);
    process.on('SIGCHLD', this.#onSignal);
    this.#collect();
    return this;
  }

  stop(): void {
    channel('child_process').unsubscribe(this.#onSpawn);
    process.off('SIGCHLD', this.#onSignal);
    clearImmediate(this.#again);
  }

  expect(): Expectation {
    this.#expectations++;
    let open = true;
    return {
      claim: (pid, onExit) => {
        const early = this.#early.get(pid);
        if (early === undefined) {
          this.#watched.set(pid, onExit);
        } else {
          this.#early.delete(pid);
          setImmediate(onExit, early);
        }
      },
      close: () => {
        if (!open) return;
        open = false;
        if (--this.#expectations === 0) this.#early.clear();
      },
    };
  }

  child(pid: number, onExit: (exit: Exit) => void): void {
    this.#watched.set(pid, onExit);
  }

  forget(): void {
    // What was handed over is not kept.
  }

  #collect(): void {
    for (;;) {
      const exited = this.#peek();
      if (exited === undefined) return;
      if (this.#isOurs(exited.pid)) {
        // libuv reaps it in this turn of its loop; what hides behind it comes up in the next.
        this.#again ??= setImmediate(() => {
          this.#again = undefined;
          this.#collect();
        });
        return;
      }
      reap(exited.pid);
      this.#handOver({ ...exited, at: wallTime() });
    }
  }

  #peek(): { pid: number; status: number } | undefined {
    try {
      return peekExited();
    } catch (error) {
      if (hasErrno(error, 'ECHILD')) return undefined;
      throw error;
    }
  }

  #isOurs(pid: number): boolean {
    for (const child of this.#ours) if (child.pid === pid) return true;
    return false;
  }

  #handOver(exit: Exit): void {
    const onExit = this.#watched.get(exit.pid);
    if (onExit !== undefined) {
      this.#watched.delete(exit.pid);
      onExit(exit);
    } else if (this.#expectations > 0) {
      this.#early.set(exit.pid, exit);
    }
  }
}
