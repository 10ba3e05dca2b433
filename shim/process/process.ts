import { setTimeout as sleep } from 'node:timers/promises';
import type { Status } from '../../src/proto/gen/containerd/task_types.ts';
import type { ProcessIo, StdioAddresses } from '../stdio/index.ts';
import type { Exit } from '../reaper/reaper.ts';
import { StateMachine } from './state.ts';

const DRAIN_TIMEOUT_MS = 10_000;

/** What a container's first process and its execs have in common. */
export class Process<Name extends string, Verb extends string> {
  /** The container's id for its first process, the exec id for others. */
  readonly id: string;
  readonly stdio: StdioAddresses;
  readonly state: StateMachine<Name, Verb>;
  io: ProcessIo | undefined;
  /** 0 until there is one. */
  pid = 0;
  #exit: Exit | undefined;
  #gone = false;
  #ended = false;
  readonly #waiting = new Set<() => void>();

  constructor(id: string, stdio: StdioAddresses, state: StateMachine<Name, Verb>) {
    this.id = id;
    this.stdio = stdio;
    this.state = state;
  }

  /** Goes on with a process that another worker has started; `exit` where it has ended since, and that is written down. */
  takeUp(pid: number, exit: Exit | undefined, io: ProcessIo | undefined): void {
    this.pid = pid;
    this.io = io;
    if (exit !== undefined) this.setExited(exit);
  }

  get status(): Status {
    return this.state.status;
  }

  /** How it ended; undefined while it has not. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /** Whether it has ended, though nobody may have been told. */
  get isGone(): boolean {
    return this.#gone;
  }

  /** To be called as soon as it has ended, whatever of it is still to be told: its pid is free for another. */
  hasGone(): void {
    this.#gone = true;
  }

  /** Settles when its clients have what it has written, as long as they read: see ProcessIo. Never rejects. */
  async outputTaken(): Promise<void> {
    await this.io?.taken().catch(() => undefined);
  }

  /** Records the end and answers all who wait. */
  setExited(exit: Exit): void {
    this.#exit = exit;
    this.#gone = true;
    this.endWait();
  }

  /** Answers all who wait, now and later, without an end: the process could not be started. */
  endWait(): void {
    this.#ended = true;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resolve of waiting) resolve();
  }

  /** Settles at the end of the process; rejects with the signal's reason. */
  async wait(signal: AbortSignal): Promise<void> {
    if (this.#ended) return;
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const aborted = (): void => {
        this.#waiting.delete(ended);
        reject(signal.reason instanceof Error ? signal.reason : new Error('cancelled'));
      };
      const ended = (): void => {
        signal.removeEventListener('abort', aborted);
        resolve();
      };
      this.#waiting.add(ended);
      signal.addEventListener('abort', aborted, { once: true });
    });
  }

  /** Waits for output that is still on its way, ten seconds at most. */
  protected async drain(): Promise<void> {
    const timer = new AbortController();
    const timeout = sleep(DRAIN_TIMEOUT_MS, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([this.io?.drained, timeout]);
    timer.abort();
  }
}
