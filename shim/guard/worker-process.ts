import { spawn, type ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ToGuard, ToWorker } from './messages.ts';

/** How often a worker is asked whether it lives, and how often in a row it may not answer. */
const PING_MS = 1000;
const MAX_UNANSWERED = 3;
/** How long it may take to serve, with all containers taken up. */
const READY_MS = 30_000;
const MAX_STDERR = 2000;
const LAST_WORDS_MS = 50;

export interface WorkerEvents {
  message(message: ToGuard): void;
  /** @param servedMs for how long it has served; undefined where it never did @param why how it ended */
  ended(servedMs: number | undefined, why: string): void;
}

/** One life of the process that does the work. */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #events: WorkerEvents;
  readonly #late: NodeJS.Timeout;
  #pings: NodeJS.Timeout | undefined;
  #unanswered = 0;
  #readySince: number | undefined;
  #stderr = '';
  #over = false;
  #verdict = '';

  /** @param program what Node is called with: the shim's own program, and its action */
  constructor(program: readonly string[], events: WorkerEvents) {
    this.#events = events;
    this.#child = spawn(process.execPath, program, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      cwd: '/',
    });
    this.#late = setTimeout(() => this.kill(`it did not serve within ${READY_MS / 1000} s`), READY_MS);
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-MAX_STDERR);
    });
    this.#child.on('message', (message: ToGuard) => this.#receive(message));
    this.#child.once('error', (error) => this.#end(`it could not be started: ${error.message}`));
    void this.#untilEnded().then((how) => this.#end(how));
  }

  /** 0 where it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /**
   * The worker has ended, and all that it has said is heard: the next one is told what is kept, and what this one has dropped must not
   * be in that, as its number may be another descriptor's by then.
   */
  async #untilEnded(): Promise<string> {
    const child = this.#child;
    const silent = new Promise((resolve) => child.once('disconnect', resolve));
    const closed = new Promise((resolve) => child.once('close', resolve));
    const how = await new Promise<string>((resolve) => {
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
    });
    await silent;
    // A program that it had started may hold its stream of errors.
    await Promise.race([closed, sleep(LAST_WORDS_MS)]);
    return how;
  }

  send(message: ToWorker): void {
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }

  /** @param verdict the reason, for the log */
  kill(verdict: string): void {
    this.#verdict ||= verdict;
    this.#child.kill('SIGKILL');
  }

  #receive(message: ToGuard): void {
    if (message.kind === 'pong') {
      this.#unanswered = 0;
      return;
    }
    if (message.kind === 'ready') {
      clearTimeout(this.#late);
      this.#readySince = performance.now();
      this.#pings = setInterval(() => this.#ping(), PING_MS);
    }
    this.#events.message(message);
  }

  /** Counted, not timed: a machine or a guard that stood still says nothing about the worker. */
  #ping(): void {
    if (this.#unanswered >= MAX_UNANSWERED) {
      this.kill(`it has not answered for ${(this.#unanswered * PING_MS) / 1000} s`);
      return;
    }
    this.#unanswered++;
    this.send({ kind: 'ping' });
  }

  #end(how: string): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#late);
    clearInterval(this.#pings);
    const said = this.#stderr.trim().split('\n').at(-1) ?? '';
    const why = [this.#verdict || how, said].filter((part) => part !== '').join(': ');
    const since = this.#readySince;
    this.#events.ended(since === undefined ? undefined : performance.now() - since, why);
  }
}
