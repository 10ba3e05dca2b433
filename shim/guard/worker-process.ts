import { spawn, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { isStopped } from '../../src/sys/process.ts';
import { Channel } from './channel.ts';
import type { Begin, Hello, ToGuard, ToWorker } from './messages.ts';

/** How often a worker is asked whether it lives, and how often in a row it may not answer. */
const PING_MS = 1000;
const MAX_UNANSWERED = 3;
/** How long it may take to serve, with all containers taken up. */
const READY_MS = 30_000;
const MAX_STDERR = 2000;
const LAST_WORDS_MS = 50;
const POLL_MS = 1;
/** Where a program that was started with Node's channel expects it. */
const CHANNEL = 3;

export interface WorkerEvents {
  message(message: ToGuard): void;
  /** @param servedMs for how long it has served; undefined where it never did @param why how it ended */
  ended(servedMs: number | undefined, why: string): void;
}

/** What somebody waits for. */
type Told = Extract<ToGuard, { kind: 'hello' | 'ready' | 'quiet' }>;

interface Hearer {
  hear(message: ToGuard): void;
  fail(why: string): void;
}

/** One life of the process that does the work. */
export class WorkerProcess {
  /** Where it listens, or will. */
  readonly socket: string;
  /** Settles when it has ended, and all that it said is heard. */
  readonly over: Promise<void>;
  readonly #child: ChildProcess;
  readonly #channel: Channel | undefined;
  readonly #events: WorkerEvents;
  #late: NodeJS.Timeout | undefined;
  #hello: Hello | undefined;
  #pings: NodeJS.Timeout | undefined;
  #unanswered = 0;
  #readySince: number | undefined;
  #stderr = '';
  readonly #hearers = new Set<Hearer>();
  /** How it has ended. */
  #why: string | undefined;
  #verdict = '';
  #tellOver: () => void = () => undefined;

  /** @param program what Node is called with: the shim's own program, and its action */
  constructor(program: readonly string[], socket: string, events: WorkerEvents) {
    this.socket = socket;
    this.#events = events;
    this.over = new Promise((resolve) => (this.#tellOver = resolve));
    this.#child = spawn(process.execPath, program, {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_CHANNEL_FD: String(CHANNEL) },
      cwd: '/',
    });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-MAX_STDERR);
    });
    const end = this.#child.stdio[CHANNEL] as Socket | undefined;
    if (end !== undefined) this.#channel = new Channel(end, (message) => this.#receive(message));
    this.#child.once('error', (error) => this.#end(`it could not be started: ${error.message}`));
    void this.#untilEnded().then((how) => this.#end(how));
  }

  /** 0 where it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /**
   * Settles with the next message of a kind, or with its hello if that has come.
   * @throws an Error where it ends before, or says nothing within that many milliseconds
   */
  async heard<K extends Told['kind']>(kind: K, withinMs: number): Promise<Extract<Told, { kind: K }>> {
    const { promise, resolve, reject } = Promise.withResolvers<Extract<Told, { kind: K }>>();
    const hearer: Hearer = {
      hear: (message) => {
        if (message.kind === kind) resolve(message as Extract<Told, { kind: K }>);
      },
      fail: (why) => reject(new Error(why)),
    };
    const timer = setTimeout(
      () => hearer.fail(`the worker is not ${kind} within ${withinMs / 1000} s`),
      withinMs,
    );
    this.#hearers.add(hearer);
    if (this.#hello !== undefined) hearer.hear(this.#hello);
    if (this.#why !== undefined) hearer.fail(`the worker has ended: ${this.#why}`);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#hearers.delete(hearer);
    }
  }

  /** What it has said of itself; undefined before that. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /**
   * The worker has ended, and all that it has said is heard: the next one is told what is kept, and what this one has dropped must not
   * be in that, as its number may be another descriptor's by then.
   */
  async #untilEnded(): Promise<string> {
    const child = this.#child;
    const closed = new Promise((resolve) => child.once('close', resolve));
    const how = await new Promise<string>((resolve) => {
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
    });
    await this.#channel?.silent;
    // A program that it had started may hold its stream of errors.
    await Promise.race([closed, sleep(LAST_WORDS_MS)]);
    return how;
  }

  /** Has it take up what is there, and serve. */
  begin(message: Begin): void {
    this.#late = setTimeout(() => this.kill(`it did not serve within ${READY_MS / 1000} s`), READY_MS);
    this.send(message);
  }

  send(message: ToWorker): void {
    this.#channel?.send(message);
  }

  /** @param verdict the reason, for the log */
  kill(verdict: string): void {
    this.#verdict ||= verdict;
    this.#child.kill('SIGKILL');
  }

  /** It stands still until `resume`; settles when it does, and all that it had said is heard. */
  async suspend(): Promise<void> {
    clearInterval(this.#pings);
    this.#child.kill('SIGSTOP');
    while (this.#why === undefined && !isStopped(this.pid)) await sleep(POLL_MS);
    // What it has written is there; each turn of the loop reads what there is.
    for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve));
  }

  resume(): void {
    this.#child.kill('SIGCONT');
    if (this.#readySince !== undefined) this.#startPings();
  }

  #receive(message: ToGuard): void {
    if (message.kind === 'pong') {
      this.#unanswered = 0;
      return;
    }
    if (message.kind === 'hello') this.#hello = message;
    if (message.kind === 'ready') {
      clearTimeout(this.#late);
      this.#readySince = performance.now();
      this.#startPings();
    }
    this.#events.message(message);
    for (const hearer of [...this.#hearers]) hearer.hear(message);
  }

  #startPings(): void {
    clearInterval(this.#pings);
    this.#unanswered = 0;
    this.#pings = setInterval(() => this.#ping(), PING_MS);
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
    if (this.#why !== undefined) return;
    clearTimeout(this.#late);
    clearInterval(this.#pings);
    const said = lastWords(this.#stderr);
    const why = [this.#verdict || how, said].filter((part) => part !== '').join(': ');
    this.#why = why;
    const since = this.#readySince;
    this.#events.ended(since === undefined ? undefined : performance.now() - since, why);
    for (const hearer of [...this.#hearers]) hearer.fail(`the worker has ended: ${why}`);
    this.#tellOver();
  }
}

/** What a program said last; of an error that nobody caught not where, nor under which Node. */
function lastWords(text: string): string {
  const lines = text.trim().split('\n');
  return lines.filter((line) => line !== '' && !/^( +at |Node\.js v)/.test(line)).at(-1) ?? '';
}
