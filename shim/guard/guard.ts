import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import type { Answer, Ask, GuardStatus, Upgraded } from '../../src/shims/control.ts';
import { listenPrivately } from '../../src/sys/listen.ts';
import { programVersion } from '../../src/version.ts';
import { listenForQuestions } from './control.ts';
import { Exits } from './exits.ts';
import { Held } from './held.ts';
import { misfit, PROTOCOL, type ExitNote, type ToGuard } from './messages.ts';
import { probe } from './probe.ts';
import { Session, type Hold } from './session.ts';
import { WorkerProcess } from './worker-process.ts';

/** After so many starts that failed in a row requests are refused, with the reason. */
const MAX_FAILED = 5;
/** One that ends sooner than that after it began to serve is not followed at once. */
const STEADY_MS = 300;
/** Milliseconds before the start that follows such a one, or a second failed one; doubled with each that fails after that … */
const FIRST_PAUSE_MS = 100;
/** … up to this. */
const LONGEST_PAUSE_MS = 5000;

/** How long the program of a worker that is to follow may take to load … */
const HELLO_MS = 30_000;
/** … what is under way to come to its end: a request that changes something is kept back for that long at most … */
const QUIESCE_MS = 30_000;
/** … the worker that serves to say so … */
const QUIET_MS = 10_000;
/** … and the one that follows to take everything up, while nobody is answered. */
const TRIAL_MS = 10_000;
const POLL_MS = 10;

export interface GuardOptions {
  /** What Node is called with for a worker. */
  readonly program: readonly string[];
  /** Where clients come, and where those who ask about the guard itself do. */
  readonly socket: string;
  readonly control: string;
  /** Where workers listen for us: one at one of them, and one that is to follow at the other. */
  readonly workerSockets: readonly [string, string];
  /** For the worker alone. */
  readonly start: unknown;
}

/**
 * Holds what must not be lost while the process that does the work is replaced: the socket and its connections, the containers' ends,
 * and their descriptors.
 */
export class Guard {
  /** Settles when the worker has left because there was nothing to do. */
  readonly left: Promise<void>;
  readonly #options: GuardOptions;
  readonly #held = new Held();
  readonly #sessions = new Set<Session>();
  readonly #log = createLogger((line) => this.#held.log(line));
  /** All processes of workers that have not ended. */
  readonly #alive = new Set<WorkerProcess>();
  readonly #exits = new Exits(
    (pid) => [...this.#alive].some((worker) => worker.pid === pid),
    (exit) => this.#tell(exit),
  );
  #listeners: Server[] = [];
  #worker: WorkerProcess | undefined;
  #serves = false;
  #terminates = false;
  #leaving = false;
  #failures = 0;
  /** Told of the first worker's start; undefined once that is over. */
  #first: { resolve: () => void; reject: (error: Error) => void } | undefined;
  /** Why requests are refused; undefined while they may wait for a worker. */
  #refusal: string | undefined;
  #leave: () => void = () => undefined;
  #restarts = 0;
  #lastEnd: GuardStatus['lastEnd'];

  /** Whether the worker is being replaced; which requests are kept back for that, and which ends. */
  #replacing = false;
  #hold: Hold = 'nothing';
  #withheld: ExitNote[] | undefined;
  /** Whether the worker stands still, and how it has ended all the same. */
  #stands = false;
  #lost: { readonly servedMs: number | undefined; readonly why: string } | undefined;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.left = new Promise((resolve) => (this.#leave = resolve));
    process.on('SIGTERM', () => {
      this.#terminates = !this.#serves || this.#stands; // the next one is told
      this.#worker?.send({ kind: 'terminate' });
    });
  }

  /** Listens, and starts the worker; settles when it serves. @throws an Error with the reason when the first worker does not */
  async serve(): Promise<void> {
    const { socket, control } = this.#options;
    const listener = createServer((client) => this.#accept(client));
    await listenPrivately(listener, socket);
    this.#listeners = [listener, await listenForQuestions(control, (ask) => this.#answer(ask))];
    try {
      await new Promise<void>((resolve, reject) => {
        this.#first = { resolve, reject };
        this.#startWorker();
      });
    } catch (error) {
      for (const path of [socket, control]) rmSync(path, { force: true });
      throw error;
    }
  }

  #accept(client: Socket): void {
    const session = new Session(client, () => this.#sessions.delete(session), this.#hold);
    this.#sessions.add(session);
    if (this.#serves && !this.#stands) session.attach(this.#worker?.socket ?? '');
    else if (this.#refusal !== undefined) session.refuse(this.#refusal);
  }

  #startWorker(): void {
    const worker = this.#spawn();
    this.#worker = worker;
    this.#begin(worker, false);
  }

  #spawn(): WorkerProcess {
    const { program, workerSockets } = this.#options;
    const [one, other] = workerSockets;
    const socket = this.#worker?.socket === one ? other : one;
    rmSync(socket, { force: true });
    const worker = new WorkerProcess(program, socket, {
      message: (message) => this.#receive(worker, message),
      ended: (servedMs, why) => this.#ended(worker, servedMs, why),
    });
    this.#alive.add(worker);
    return worker;
  }

  /** @param trial see messages.ts; it is told of ends when it is over */
  #begin(worker: WorkerProcess, trial: boolean): void {
    const { start } = this.#options;
    const { socket } = worker;
    const exits = trial ? [] : this.#exits.kept;
    const held = this.#held.entries;
    worker.begin({ kind: 'begin', protocol: PROTOCOL, trial, start, socket, held, exits });
  }

  #receive(worker: WorkerProcess, message: ToGuard): void {
    switch (message.kind) {
      case 'ready':
        if (worker !== this.#worker) return;
        this.#serves = true;
        for (const session of this.#sessions) session.attach(worker.socket);
        if (this.#terminates) worker.send({ kind: 'terminate' });
        this.#terminates = false;
        this.#first?.resolve();
        this.#first = undefined;
        return;
      case 'hold':
        this.#keep(worker, message);
        return;
      case 'drop':
        for (const name of message.names) this.#held.drop(name);
        return;
      case 'forget':
        this.#exits.forget(message.pids);
        return;
      case 'leaving':
        this.#leaving = true;
        for (const path of [this.#options.socket, this.#options.control]) rmSync(path, { force: true });
        for (const listener of this.#listeners) listener.close();
        return;
      case 'hello':
      case 'quiet':
      case 'pong':
        return; // WorkerProcess has them
    }
  }

  #keep(worker: WorkerProcess, { call, name, fd }: ToGuard & { kind: 'hold' }): void {
    try {
      this.#held.hold(worker.pid, name, fd);
      worker.send({ kind: 'held', call });
    } catch (error) {
      worker.send({ kind: 'held', call, error: messageOf(error) });
    }
  }

  #tell(exit: ExitNote): void {
    if (this.#withheld === undefined) this.#worker?.send({ kind: 'exit', exit });
    else this.#withheld.push(exit);
  }

  #ended(worker: WorkerProcess, servedMs: number | undefined, why: string): void {
    this.#alive.delete(worker);
    if (worker !== this.#worker) return; // it has been replaced, or was to follow
    if (this.#first !== undefined) this.#first.reject(new Error(`the shim's worker could not start: ${why}`));
    else if (this.#stands) this.#lost = { servedMs, why };
    else this.#workerEnded(servedMs, why);
  }

  #workerEnded(servedMs: number | undefined, why: string): void {
    this.#serves = false;
    this.#worker = undefined;
    if (this.#leaving) {
      for (const session of this.#sessions) session.end();
      for (const path of this.#options.workerSockets) rmSync(path, { force: true });
      this.#leave();
      return;
    }
    this.#restarts++;
    this.#lastEnd = { why, at: Date.now() };
    this.#failures = servedMs === undefined ? this.#failures + 1 : 0;
    const reason = `the shim's worker has ended (${why})`;
    this.#refusal =
      this.#failures < MAX_FAILED
        ? undefined
        : `${reason}, ${this.#failures} times in a row; the containers run on, and it is tried again`;
    for (const session of this.#sessions) {
      session.detach(reason);
      if (this.#refusal !== undefined) session.refuse(this.#refusal);
    }
    const pause = this.#pause(servedMs ?? Infinity);
    this.#log.error('the worker has ended, and is started again', {
      why,
      failures: this.#failures,
      pauseMs: pause,
    });
    setTimeout(() => this.#startWorker(), pause);
  }

  /** Milliseconds until the next start. */
  #pause(servedMs: number): number {
    if (this.#failures >= MAX_FAILED) return LONGEST_PAUSE_MS;
    if (this.#failures >= 2) return Math.min(FIRST_PAUSE_MS * 2 ** (this.#failures - 2), LONGEST_PAUSE_MS);
    return servedMs < STEADY_MS ? FIRST_PAUSE_MS : 0;
  }

  async #answer(ask: Ask): Promise<Answer> {
    try {
      return ask === 'status' ? { status: this.#status() } : { upgraded: await this.#upgrade() };
    } catch (error) {
      return { error: messageOf(error) };
    }
  }

  #status(): GuardStatus {
    const worker = this.#serves ? this.#worker : undefined;
    return {
      pid: process.pid,
      version: programVersion,
      protocol: PROTOCOL,
      ...(worker === undefined ? {} : { worker: { pid: worker.pid, version: worker.hello?.version ?? '' } }),
      restarts: this.#restarts,
      ...(this.#lastEnd === undefined ? {} : { lastEnd: this.#lastEnd }),
    };
  }

  /**
   * Replaces the worker by the installed version. The one that serves stands still until the other has taken everything up and answered
   * a question, and goes on if that does not happen.
   * @throws an Error with the reason where the worker was not replaced; it serves on
   */
  async #upgrade(): Promise<Upgraded> {
    const old = this.#worker;
    if (this.#replacing) throw new Error('its worker is being replaced already');
    if (old === undefined || !this.#serves || this.#leaving)
      throw new Error('no worker serves now; the next one is of the installed version');
    const began = performance.now();
    this.#replacing = true;
    const next = this.#spawn();
    try {
      const hello = await next.heard('hello', HELLO_MS);
      const why = misfit(PROTOCOL, hello);
      if (why !== undefined) throw new Error(why);
      await this.#quiesce(old);
      this.#stands = true;
      await old.suspend();
      this.#begin(next, true);
      await next.heard('ready', TRIAL_MS);
      await probe(next.socket);
      this.#log.info('the worker is replaced', { from: old.hello?.version, to: hello.version });
      await this.#adopt(old, next);
      return {
        worker: { from: old.hello?.version ?? '', to: hello.version },
        tookMs: Math.round(performance.now() - began),
      };
    } catch (error) {
      next.kill('it was not needed');
      await next.over;
      this.#goBack(old);
      this.#log.warn('the worker was not replaced', { why: messageOf(error) });
      throw error;
    } finally {
      this.#replacing = false;
    }
  }

  /** Settles when the worker has nothing under way, and is given nothing. @throws an Error where that does not come to be in time */
  async #quiesce(old: WorkerProcess): Promise<void> {
    const deadline = performance.now() + QUIESCE_MS;
    this.#keepBack('changes');
    for (;;) {
      let [why] = this.#changing();
      if (why === undefined) {
        this.#withheld = [];
        old.send({ kind: 'quiesce' });
        why = (await old.heard('quiet', QUIET_MS)).obstacle ?? this.#changing()[0];
        if (why === undefined && !this.#leaving) {
          this.#keepBack('all');
          return;
        }
        this.#tellWithheld(old);
      }
      if (this.#worker !== old || this.#leaving) throw new Error('its worker has ended meanwhile');
      if (performance.now() > deadline)
        throw new Error(`${why} has not come to its end in ${QUIESCE_MS / 1000} s: try again afterwards`);
      await sleep(POLL_MS);
    }
  }

  #changing(): string[] {
    return [...this.#sessions].flatMap((session) => session.changing);
  }

  #keepBack(hold: Hold): void {
    this.#hold = hold;
    for (const session of this.#sessions) session.hold(hold);
  }

  #tellWithheld(worker: WorkerProcess): void {
    for (const exit of this.#withheld ?? []) worker.send({ kind: 'exit', exit });
    this.#withheld = undefined;
  }

  async #adopt(old: WorkerProcess, next: WorkerProcess): Promise<void> {
    this.#worker = next;
    this.#stands = false;
    this.#lost = undefined;
    old.kill('it was replaced');
    await old.over;
    if (this.#worker === next) {
      next.send({ kind: 'adopted' });
      for (const exit of this.#exits.kept) next.send({ kind: 'exit', exit });
      for (const session of this.#sessions) session.handOver(next.socket);
      if (this.#terminates) next.send({ kind: 'terminate' });
      this.#terminates = false;
    }
    this.#withheld = undefined;
    this.#keepBack('nothing');
  }

  /** The worker that stood still, if it did, goes on. */
  #goBack(old: WorkerProcess): void {
    const lost = this.#lost;
    const stood = this.#stands;
    this.#lost = undefined;
    this.#stands = false;
    if (lost !== undefined) {
      this.#withheld = undefined;
      this.#workerEnded(lost.servedMs, lost.why);
    } else if (this.#worker === old) {
      if (stood) old.resume();
      this.#tellWithheld(old);
      for (const session of this.#sessions) if (!session.isAttached) session.attach(old.socket);
    }
    this.#withheld = undefined;
    this.#keepBack('nothing');
  }
}
