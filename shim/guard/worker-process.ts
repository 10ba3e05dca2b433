import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { OomKills } from '../../src/sys/oom-kills.ts';
import { isStopped } from '../../src/sys/process.ts';
import { Channel } from './channel.ts';
import { Heartbeat } from './heartbeat.ts';
import { lastWords } from './last-words.ts';
import type { Begin, ExitNote, Hello, ToGuard, ToWorker } from './messages.ts';
import { Loading } from './loading.ts';
import { descriptorOf } from './successor.ts';

/** How long it may take to serve, with all containers taken up. */
const READY_MS = 30_000;
/** Of what it writes as it ends: V8 has where it was after the reason. */
const MAX_STDERR = 16_384;
const LAST_WORDS_MS = 50;
const POLL_MS = 1;
/**
 * Of the worker's heap, in MiB: far more than it needs for thousands of containers. One that leaks is ended by V8, and followed, before
 * the host is short of memory. The guard has V8's own limit, as its end costs what it holds.
 */
const LIMITS = ['--max-old-space-size=1024'];
/** Where a program that was started with Node's channel expects it. */
const CHANNEL = 3;

export interface WorkerEvents {
  message(message: ToGuard): void;
  /** @param servedMs for how long it has served; undefined where it never did @param why how it ended */
  ended(servedMs: number | undefined, why: string): void;
}

/** A worker that serves, as a program that takes the guard's place has it. */
export interface WorkerState {
  readonly pid: number;
  readonly socket: string;
  readonly hello: Hello;
  readonly servedMs: number;
  /** Descriptors of its messages and of its stream of errors. */
  readonly channel: number;
  readonly rest: string;
  readonly stderr: number;
}

/** A process, whoever has started it. */
interface Life {
  readonly pid: number;
  readonly channel: Socket | undefined;
  readonly stderr: Socket | undefined;
  /** Settles with how it has ended. */
  readonly exited: Promise<string>;
  kill(signal: NodeJS.Signals): void;
}

/** What somebody waits for. */
type Told = Extract<ToGuard, { kind: 'hello' | 'ready' | 'quiet' }>;

const UNTOLD: Readonly<Record<Told['kind'], string>> = {
  hello: 'has not loaded its program',
  ready: 'has not taken the containers up',
  quiet: 'has not come to the end of what is under way',
};

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
  /** Whether libuv reaps it, which has started it. */
  readonly isChild: boolean;
  readonly #life: Life;
  readonly #channel: Channel | undefined;
  readonly #events: WorkerEvents;
  #late: NodeJS.Timeout | undefined;
  #hello: Hello | undefined;
  /** Until it has said what it is. */
  readonly #loading: Loading | undefined;
  readonly #heartbeat: Heartbeat;
  readonly #oomKills: OomKills;
  #readySince: number | undefined;
  #stderr = '';
  readonly #hearers = new Set<Hearer>();
  /** How it has ended. */
  #why: string | undefined;
  #verdict = '';
  #tellOver: () => void = () => undefined;
  #tellExited: (how: string) => void = () => undefined;

  /** @param from what Node is called with, the shim's own program and its action; or what the program before this one has left */
  constructor(from: readonly string[] | WorkerState, socket: string, events: WorkerEvents) {
    this.socket = socket;
    this.#events = events;
    this.over = new Promise((resolve) => (this.#tellOver = resolve));
    const exited = new Promise<string>((resolve) => (this.#tellExited = resolve));
    const left = 'pid' in from ? from : undefined;
    this.isChild = left === undefined;
    this.#life = 'pid' in from ? adopt(from, exited) : start(from);
    this.#oomKills = new OomKills(this.pid);
    if (left === undefined) this.#loading = new Loading(this.pid, (why) => this.kill(why));
    this.#heartbeat = new Heartbeat(
      this.pid,
      () => {
        this.#oomKills.note();
        this.send({ kind: 'ping' });
      },
      (why) => this.kill(why),
    );
    const { channel, stderr } = this.#life;
    stderr?.on('error', () => undefined);
    stderr?.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-MAX_STDERR);
    });
    if (channel !== undefined)
      this.#channel = new Channel(channel, (message) => this.#receive(message), left?.rest);
    if (left !== undefined) {
      this.#hello = left.hello;
      this.#readySince = performance.now() - left.servedMs;
      this.#heartbeat.start();
    }
    void this.#untilEnded().then((how) => this.#end(how));
  }

  /** What the guard has reaped, where it is not libuv that does. */
  hasExited({ status, signal }: ExitNote): void {
    this.#tellExited(signal ?? `exit code ${status}`);
  }

  /** Whether all that it was told is out. */
  get isStill(): boolean {
    return this.#channel?.isStill === true;
  }

  /** Of one that serves. @throws an Error where it has ended */
  get state(): WorkerState {
    const { stderr, pid } = this.#life;
    if (this.#channel === undefined || stderr === undefined || this.#hello === undefined)
      throw new Error('the worker has ended');
    const { fd, rest } = this.#channel.state;
    const servedMs = performance.now() - (this.#readySince ?? 0);
    const { socket } = this;
    return { pid, socket, hello: this.#hello, servedMs, channel: fd, rest, stderr: descriptorOf(stderr) };
  }

  /** 0 where it could not be started. */
  get pid(): number {
    return this.#life.pid;
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
      () => hearer.fail(`the worker ${UNTOLD[kind]} within ${withinMs / 1000} s`),
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

  /** What it has not done yet that it has to before it serves. */
  get lacks(): string {
    return UNTOLD[this.#hello === undefined ? 'hello' : 'ready'];
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
    const { stderr, exited } = this.#life;
    const closed = new Promise((resolve) => stderr?.once('close', resolve));
    const how = await exited;
    await this.#channel?.silent;
    // A program that it had started may hold its stream of errors.
    await Promise.race([closed, sleep(LAST_WORDS_MS)]);
    await turns(); // what it has answered on its other connections is heard too
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

  /** A container is about to come: shim/lifecycle/shim.ts. One that is just starting ignores it, and one that has ended is not asked. */
  expect(): void {
    this.#life.kill('SIGURG');
  }

  /** @param verdict the reason, for the log */
  kill(verdict: string): void {
    this.#verdict ||= verdict;
    this.#life.kill('SIGKILL');
  }

  /** It stands still until `resume`; settles when it does, and all that it had said is heard. */
  async suspend(): Promise<void> {
    this.#heartbeat.stop();
    this.#life.kill('SIGSTOP');
    while (this.#why === undefined && !isStopped(this.pid)) await sleep(POLL_MS);
    await turns();
  }

  resume(): void {
    this.#life.kill('SIGCONT');
    if (this.#readySince !== undefined) this.#heartbeat.start();
  }

  #receive(message: ToGuard): void {
    if (message.kind === 'pong') {
      this.#heartbeat.answered();
      return;
    }
    if (message.kind === 'hello') {
      this.#hello = message;
      this.#loading?.stop();
    }
    if (message.kind === 'ready') {
      clearTimeout(this.#late);
      this.#readySince = performance.now();
      this.#heartbeat.start();
    }
    this.#events.message(message);
    for (const hearer of [...this.#hearers]) hearer.hear(message);
  }

  #end(how: string): void {
    if (this.#why !== undefined) return;
    clearTimeout(this.#late);
    this.#loading?.stop();
    this.#heartbeat.stop();
    const said = lastWords(this.#stderr);
    const isShort = how === 'SIGKILL' && this.#verdict === '' && this.#oomKills.isMore;
    const end = isShort ? 'SIGKILL by the kernel, for want of memory' : how;
    const why = [this.#verdict || end, said].filter((part) => part !== '').join(': ');
    this.#why = why;
    const since = this.#readySince;
    this.#events.ended(since === undefined ? undefined : performance.now() - since, why);
    for (const hearer of [...this.#hearers]) hearer.fail(`the worker has ended: ${why}`);
    this.#tellOver();
  }
}

/** @param program what Node is called with */
function start(program: readonly string[]): Life {
  const child = spawn(process.execPath, [...LIMITS, ...program], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_CHANNEL_FD: String(CHANNEL) },
    cwd: '/',
  });
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`it could not be started: ${error.message}`));
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  return {
    pid: child.pid ?? 0,
    channel: child.stdio[CHANNEL] as Socket | undefined,
    stderr: child.stderr as Socket | undefined,
    exited,
    kill: (signal) => void child.kill(signal),
  };
}

/** One that the program before this one had started. Its pid is nobody else's before it is reaped, here. */
function adopt({ pid, channel, stderr }: WorkerState, exited: Promise<string>): Life {
  let lives = true;
  void exited.then(() => (lives = false));
  return {
    pid,
    channel: new Socket({ fd: channel }),
    stderr: new Socket({ fd: stderr }),
    exited,
    kill: (signal) => void (lives && process.kill(pid, signal)),
  };
}

/** What a process that does nothing any more has written is there: each turn of the loop reads what there is. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve));
}
