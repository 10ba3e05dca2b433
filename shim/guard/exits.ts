import { hasErrno } from '../../src/errors.ts';
import { wallTime } from '../../src/sys/clock.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import { peekExited, reap } from '../../src/sys/wait.ts';
import type { ExitJournal } from './exit-journal.ts';
import type { ExitNote } from './messages.ts';

/**
 * How often it is looked for an end that no signal has told of, in milliseconds: libuv keeps as many signals as fit into a pipe, and while this
 * process does something else, such as to start a worker, others can fill it.
 */
const LOST_MS = 1000;

/**
 * Reaps whatever a container's processes and runtimes leave to this subreaper, and keeps how each has ended until the worker says that
 * nobody will ask.
 *
 * INVARIANTS
 * - A child that child_process started (the worker) is never reaped here: libuv does that, and must see its status.
 * - Each end is told once to the worker that serves at that moment, and to every one that begins while it is kept.
 */
export class Exits {
  readonly #kept = new Map<number, ExitNote>();
  readonly #journal: ExitJournal;
  readonly #isWorker: (pid: number) => boolean;
  readonly #tell: (exit: ExitNote) => void;
  readonly #lost: NodeJS.Timeout;
  #looksAgain = false;

  /**
   * @param journal makes the file that outlives this process
   * @param kept what the program before this one has kept
   */
  constructor(
    journal: (kept: readonly ExitNote[]) => ExitJournal,
    isWorker: (pid: number) => boolean,
    tell: (exit: ExitNote) => void,
    kept: readonly ExitNote[] = [],
  ) {
    this.#isWorker = isWorker;
    this.#tell = tell;
    for (const exit of kept) this.#kept.set(exit.pid, exit);
    this.#journal = journal(kept);
    process.on('SIGCHLD', () => this.collect());
    this.#lost = setInterval(() => {
      if (this.#peek() !== undefined) process.kill(process.pid, 'SIGCHLD'); // libuv has to hear of a worker's end, too
    }, LOST_MS).unref();
  }

  /** Those that somebody may still ask for, oldest first. */
  get kept(): ExitNote[] {
    return [...this.#kept.values()];
  }

  forget(pids: readonly number[]): void {
    const known = pids.filter((pid) => this.#kept.delete(pid));
    if (known.length > 0) this.#journal.forget(known, this.kept);
  }

  /** Nobody will ask any more. */
  close(): void {
    clearInterval(this.#lost);
    this.#journal.remove();
  }

  /** Reaps what has ended. */
  collect(): void {
    this.#looksAgain = false;
    for (;;) {
      const exited = this.#peek();
      if (exited === undefined) return;
      if (this.#isWorker(exited.pid)) {
        // libuv reaps it in this turn of its loop; what hides behind it comes up in the next.
        if (!this.#looksAgain) setImmediate(() => this.collect());
        this.#looksAgain = true;
        return;
      }
      const startTime = startTimeOf(exited.pid); // which a zombie still has
      reap(exited.pid);
      const { seconds, nanos } = wallTime();
      const exit = { ...exited, startTime, seconds: String(seconds), nanos };
      this.#kept.delete(exit.pid);
      this.#kept.set(exit.pid, exit);
      this.#journal.add(exit);
      this.#tell(exit);
    }
  }

  #peek(): { pid: number; status: number; signal?: string } | undefined {
    try {
      return peekExited();
    } catch (error) {
      if (hasErrno(error, 'ECHILD')) return undefined;
      throw error;
    }
  }
}
