import { open, rmSync } from 'node:fs';
import { createServer, Socket, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import type { Answer, Ask, GuardStatus, Upgraded } from '../../src/shims/control.ts';
import { listenPrivately } from '../../src/sys/listen.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import { programVersion } from '../../src/version.ts';
import { createQuestions } from './control.ts';
import { ExitJournal } from './exit-journal.ts';
import { Exits } from './exits.ts';
import { Held } from './held.ts';
import { misfit, PROTOCOL, type ExitNote, type Hello, type ToGuard } from './messages.ts';
import { Outbox } from './outbox.ts';
import { probe } from './probe.ts';
import { Session, type Hold, type SessionState } from './session.ts';
import { become, checkSuccessor, descriptorOf, type GuardState, type Installed } from './successor.ts';
import { WorkerProcess, type WorkerState } from './worker-process.ts';

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
/** How long half a request, or an answer that a client does not take, is waited for before this program is replaced. */
const STILL_MS = 1000;
/** This program, which may be another one by now. */
const ownProgram = process.argv[1] ?? '';

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
  /** Folder of the journals of exits. */
  readonly exits: string;
  /** Descriptor of the lock that says that this shim lives. */
  readonly lock: number;
}

/**
 * Holds what must not be lost while the process that does the work is replaced: the socket and its connections, the containers' ends,
 * and their descriptors.
 */
export class Guard {
  /** Settles when the worker has left because there was nothing to do. */
  readonly left: Promise<void>;
  readonly #options: GuardOptions;
  readonly #held: Held;
  readonly #outbox: Outbox;
  readonly #sessions = new Set<Session>();
  readonly #log = createLogger((line) => this.#held.log(line));
  /** All processes of workers that have not ended. */
  readonly #alive = new Set<WorkerProcess>();
  /** A program that is looked at. */
  #checked = 0;
  readonly #exits: Exits;
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

  /** @param left what the program before this one has left, for `goOn` */
  constructor(options: GuardOptions, left?: GuardState) {
    this.#options = options;
    this.#held = new Held(left?.held);
    this.#outbox = new Outbox((answered) => this.#worker?.send(answered), left?.outbox);
    const self = { pid: process.pid, startTime: startTimeOf(process.pid) };
    this.#exits = new Exits(
      (kept) => new ExitJournal(options.exits, self, kept),
      (pid) => pid === this.#checked || [...this.#alive].some((one) => one.isChild && one.pid === pid),
      (exit) => this.#tell(exit),
      left?.exits,
    );
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
    const questions = createQuestions((ask, asker) => this.#answer(ask, asker));
    rmSync(control, { force: true });
    await listenPrivately(questions, control);
    this.#listeners = [listener, questions];
    try {
      await new Promise<void>((resolve, reject) => {
        this.#first = { resolve, reject };
        this.#startWorker();
      });
    } catch (error) {
      for (const path of [socket, control]) rmSync(path, { force: true });
      this.#exits.close();
      throw error;
    }
  }

  /** Goes on where the program before this one has stopped, with the same process and descriptors. */
  goOn(left: GuardState): void {
    const [clients = -1, control = -1] = left.listeners;
    const questions = createQuestions((ask, asker) => this.#answer(ask, asker));
    this.#listeners = [
      createServer((client) => this.#accept(client)).listen({ fd: clients }),
      questions.listen({ fd: control }),
    ];
    this.#restarts = left.restarts;
    this.#lastEnd = left.lastEnd;
    this.#terminates = left.terminates;
    for (const state of left.sessions) this.#open(new Socket({ fd: state.fd }), state);
    const worker = this.#watch(left.worker, left.worker.socket);
    this.#worker = worker;
    this.#serves = true;
    this.#adopted(worker);
    this.#exits.collect();
    new Socket({ fd: left.asker.fd }).on('error', () => undefined).end(left.asker.answer);
  }

  #open(client: Socket, state?: SessionState): Session {
    const session = new Session(client, () => this.#sessions.delete(session), this.#hold, state);
    this.#sessions.add(session);
    return session;
  }

  #accept(client: Socket): void {
    const session = this.#open(client);
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
    return this.#watch(program, socket);
  }

  #watch(from: readonly string[] | WorkerState, socket: string): WorkerProcess {
    const worker: WorkerProcess = new WorkerProcess(from, socket, {
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
      case 'open':
        this.#openFile(worker, message);
        return;
      case 'drop':
        for (const name of message.names) this.#held.drop(name);
        return;
      case 'call':
        this.#outbox.call(message);
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

  /** On one of libuv's threads: a client may name a file on a disk that does not answer. */
  #openFile(worker: WorkerProcess, { call, name, path, flags }: ToGuard & { kind: 'open' }): void {
    open(path, flags, (error, fd) => {
      if (error === null) this.#held.keep(name, fd);
      worker.send({
        kind: 'opened',
        call,
        ...(error === null ? { fd } : { fd: -1, error: error.message }),
      });
    });
  }

  #tell(exit: ExitNote): void {
    const worker = [...this.#alive].find(({ pid, isChild }) => !isChild && pid === exit.pid);
    if (worker !== undefined) {
      this.#exits.forget([exit.pid]);
      worker.hasExited(exit);
      return;
    }
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
      this.#exits.close();
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

  async #answer(ask: Ask, asker: Socket): Promise<Answer> {
    try {
      return ask === 'status' ? { status: this.#status() } : { upgraded: await this.#upgrade(asker) };
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
   * Replaces the worker by the installed version, and then this program. The worker that serves stands still until the other has taken
   * everything up and answered a question, and goes on if that does not happen.
   * @throws an Error with the reason where the worker was not replaced; it serves on
   */
  async #upgrade(asker: Socket): Promise<Upgraded> {
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
      const successor = await this.#successor(hello);
      await this.#quiesce(old);
      this.#stands = true;
      await old.suspend();
      this.#begin(next, true);
      await next.heard('ready', TRIAL_MS);
      await probe(next.socket);
      this.#log.info('the worker is replaced', { from: old.hello?.version, to: hello.version });
      const upgraded = (guard: Upgraded['guard']): Upgraded => ({
        worker: { from: old.hello?.version ?? '', to: hello.version },
        guard,
        tookMs: Math.round(performance.now() - began),
      });
      await this.#adopt(old, next, async () => {
        if (!('version' in successor)) return;
        const { version } = successor;
        const answer = { upgraded: upgraded({ from: programVersion, to: version }) };
        await this.#become(next, { fd: descriptorOf(asker), answer: `${JSON.stringify(answer)}\n` });
      });
      const stays = 'why' in successor ? successor.why : 'what it holds did not come to rest';
      return upgraded({ from: programVersion, to: programVersion, why: stays });
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

  /** The installed program that is to take this one's place, or why this one stays. */
  async #successor(worker: Hello): Promise<Installed | { readonly why: string }> {
    try {
      const found = await checkSuccessor(ownProgram, (pid, lives) => (this.#checked = lives ? pid : 0));
      const why = misfit(found.protocol, worker);
      return why === undefined ? found : { why };
    } catch (error) {
      return { why: messageOf(error) };
    }
  }

  /** Settles only where this program has to stay, as what it holds does not come to rest. */
  async #become(worker: WorkerProcess, asker: GuardState['asker']): Promise<void> {
    const deadline = performance.now() + STILL_MS;
    for (;;) {
      if (this.#worker !== worker) return;
      const all = [worker, this.#outbox, ...this.#sessions];
      if (all.every(({ isStill }) => isStill)) break;
      if (performance.now() > deadline) return;
      await sleep(POLL_MS);
    }
    become(ownProgram, {
      options: this.#options,
      listeners: this.#listeners.map(descriptorOf),
      held: this.#held.entries,
      exits: this.#exits.kept,
      sessions: [...this.#sessions].map(({ state }) => state),
      outbox: this.#outbox.state,
      worker: worker.state,
      restarts: this.#restarts,
      lastEnd: this.#lastEnd,
      terminates: this.#terminates,
      asker,
    });
  }

  /** @param first is done while nobody is given anything */
  async #adopt(old: WorkerProcess, next: WorkerProcess, first: () => Promise<void>): Promise<void> {
    this.#worker = next;
    this.#stands = false;
    this.#lost = undefined;
    old.kill('it was replaced');
    await old.over;
    await first().catch((error: unknown) =>
      this.#log.warn('the guard stays of its version', { why: messageOf(error) }),
    );
    this.#withheld = undefined;
    if (this.#worker === next) this.#adopted(next);
    this.#keepBack('nothing');
  }

  #adopted(worker: WorkerProcess): void {
    worker.send({ kind: 'adopted' });
    for (const exit of this.#exits.kept) worker.send({ kind: 'exit', exit });
    for (const session of this.#sessions) session.handOver(worker.socket);
    if (this.#terminates) worker.send({ kind: 'terminate' });
    this.#terminates = false;
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
