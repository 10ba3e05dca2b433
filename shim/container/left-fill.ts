import type { Logger } from '../../src/log.ts';
import { messageOf } from '../../src/errors.ts';
import { readState, removeFill, writeState } from '../../src/pages/fill-files.ts';
import { isAlive } from '../../src/sys/process.ts';
import type { Exit, Reaper } from '../reaper/reaper.ts';
import type { Accounting } from './accounting.ts';
import type { ContainerFill } from './fill.ts';

/** A restored container's memory that comes in by a page server which an earlier worker has started: see Fill. */
export class LeftFill implements ContainerFill {
  readonly folder: string;
  readonly ended: Promise<void>;
  readonly #accounting: Accounting;
  readonly #log: Logger;
  #server: { readonly pid: number; readonly startTime: string } | undefined;
  #stopped = false;
  #lost: string | undefined;
  #over = false;
  #resolve: () => void = () => undefined;

  constructor(folder: string, reaper: Reaper, accounting: Accounting, log: Logger) {
    this.folder = folder;
    this.#accounting = accounting;
    this.#log = log;
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
    const state = readState(folder);
    if (state?.kind !== 'filling') {
      this.#lost = state?.kind === 'failed' ? state.why : undefined;
      this.#finish();
      return;
    }
    this.#server = state;
    const expectation = reaper.expect();
    expectation.claim(state.pid, (exit) => this.#serverEnded(exit));
    expectation.close();
  }

  get lost(): string | undefined {
    return this.#lost;
  }

  get isMissing(): boolean {
    return !this.#over || this.#lost !== undefined;
  }

  async start(): Promise<void> {
    // It was.
  }

  restored(): void {
    // The worker that had it restored knew.
  }

  stop(): void {
    this.#stopped = true;
    const { pid, startTime } = this.#server ?? { pid: 0, startTime: '' };
    if (!this.#over && isAlive(pid, startTime)) process.kill(pid, 'SIGKILL');
    else this.#finish();
  }

  async remove(): Promise<void> {
    this.stop();
    await this.ended;
    removeFill(this.folder);
  }

  #serverEnded({ pid, status }: Exit): void {
    if (this.#over) return;
    const complete = status === 0 || this.#stopped;
    const why = complete ? '' : `the page server has ended with status ${status}`;
    if (!complete) this.#lost = why;
    const state = readState(this.folder);
    if (state !== undefined)
      writeState(this.folder, { ...state, pid, kind: complete ? 'complete' : 'failed', why });
    this.#finish();
    if (complete) return;
    this.#log.error('a restored container is ended, as its memory cannot be brought in', { why });
    this.#accounting.end().catch((error: unknown) => {
      this.#log.error('a container without its memory could not be ended', { error: messageOf(error) });
    });
  }

  #finish(): void {
    this.#over = true;
    this.#resolve();
  }
}
