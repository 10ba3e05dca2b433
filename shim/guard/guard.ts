import { open, rmSync } from 'node:fs';
import { createServer, Socket, type Server } from 'node:net';
import { messageOf } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { surviveMistakes } from '../../src/mistakes.ts';
import type { Answer, Ask, GuardStatus } from '../../src/shims/control.ts';
import { listenPrivately } from '../../src/sys/listen.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import { programVersion } from '../../src/version.ts';
import { createQuestions } from './control.ts';
import { Deposits } from './deposits.ts';
import { ExitJournal } from './exit-journal.ts';
import { Exits } from './exits.ts';
import { Held } from './held.ts';
import { PROTOCOL, type ExitNote, type ToGuard } from './messages.ts';
import { Notes } from './notes.ts';
import { Outbox } from './outbox.ts';
import { Replacement, type Replaced } from './replacement.ts';
import { Restarts, type WorkerEnd } from './restarts.ts';
import { PATIENCE_MS } from './requests.ts';
import { Session, type SessionState } from './session.ts';
import { descriptorOf, type GuardState } from './successor.ts';
import { Turns } from './turns.ts';
import { WorkerProcess, type WorkerState } from './worker-process.ts';

/** For how long requests wait for a worker that starts. */
const OVERDUE_MS = 10_000;

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
  readonly #notes: Notes;
  readonly #sessions = new Set<Session>();
  readonly #turns = new Turns();
  readonly #log = createLogger((line) => this.#held.log(line));
  /** All processes of workers that have not ended. */
  readonly #alive = new Set<WorkerProcess>();
  readonly #exits: Exits;
  /** What each worker has left, and what is answered with: that of the last one that served. */
  readonly #left = new WeakMap<WorkerProcess, Deposits>();
  #deposits: Deposits;
  /** Run out where no worker has served for a while, and for longer than a client is to wait. */
  #vacancy: NodeJS.Timeout | undefined;
  #overdue: NodeJS.Timeout | undefined;
  /** Why requests are refused though a worker may only be slow to start; undefined where they are not. */
  #lateness: string | undefined;
  #isVacant = false;
  #listeners: Server[] = [];
  #worker: WorkerProcess | undefined;
  #serves = false;
  #terminates = false;
  #leaving = false;
  /** Told of the first worker's start; undefined once that is over. */
  #first: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #leave: () => void = () => undefined;
  readonly #restarts: Restarts;
  readonly #replacement = new Replacement(this.#asReplaced());

  /** @param left what the program before this one has left, for `goOn` */
  constructor(options: GuardOptions, left?: GuardState) {
    this.#options = options;
    this.#held = new Held(left?.held);
    this.#notes = new Notes(left?.notes);
    this.#restarts = new Restarts(left);
    this.#deposits = new Deposits(left?.deposits);
    this.#outbox = new Outbox((answered) => this.#worker?.send(answered), left?.outbox);
    const self = { pid: process.pid, startTime: startTimeOf(process.pid) };
    this.#exits = new Exits(
      (kept) => new ExitJournal(options.exits, self, kept),
      (pid) =>
        pid === this.#replacement.checked || [...this.#alive].some((one) => one.isChild && one.pid === pid),
      (exit) => this.#tell(exit),
      left?.exits,
    );
    this.left = new Promise((resolve) => (this.#leave = resolve));
    process.on('SIGURG', () => this.#worker?.expect()); // from the launcher
    process.on('SIGTERM', () => {
      this.#terminates = true; // until a worker has heard it: this one may end before
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
    surviveMistakes(this.#log);
  }

  /** Goes on where the program before this one has stopped, with the same process and descriptors. */
  goOn(left: GuardState): void {
    surviveMistakes(this.#log);
    const [clients = -1, control = -1] = left.listeners;
    const questions = createQuestions((ask, asker) => this.#answer(ask, asker));
    this.#listeners = [
      createServer((client) => this.#accept(client)).listen({ fd: clients }),
      questions.listen({ fd: control }),
    ];
    this.#terminates = left.terminates;
    for (const state of left.sessions) this.#open(new Socket({ fd: state.fd }), state);
    const worker = this.#watch(left.worker, left.worker.socket);
    this.#worker = worker;
    this.#left.set(worker, this.#deposits);
    this.#serves = true;
    this.#adopted(worker);
    this.#exits.collect();
    new Socket({ fd: left.asker.fd }).on('error', () => undefined).end(left.asker.answer);
  }

  #open(client: Socket, state?: SessionState): Session {
    const session = new Session(client, () => this.#sessions.delete(session), {
      find: (method, payload) => this.#deposits.find(method, payload),
      hold: this.#replacement.hold,
      note: this.#notes.open(),
      turns: this.#turns,
      state,
    });
    this.#sessions.add(session);
    return session;
  }

  #accept(client: Socket): void {
    const session = this.#open(client);
    const refusal = this.#restarts.refusal ?? this.#lateness;
    if (this.#serves && !this.#replacement.stands) session.attach(this.#worker?.socket ?? '');
    else if (refusal !== undefined) session.refuse(refusal);
    else if (this.#isVacant) session.vacate();
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
    this.#left.set(worker, new Deposits());
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
        this.#isVacant = false;
        for (const timer of [this.#vacancy, this.#overdue]) clearTimeout(timer);
        this.#vacancy = this.#overdue = this.#lateness = undefined;
        this.#useDeposits(worker);
        this.#turns.isUsed = worker.hello?.anyOrder === true;
        for (const session of this.#sessions) session.attach(worker.socket);
        if (this.#terminates) worker.send({ kind: 'terminate' });
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
      case 'deposit':
        this.#left.get(worker)?.put(message.task, message.deposits);
        return;
      case 'forget':
        this.#exits.forget(message.pids);
        return;
      case 'stays':
        this.#terminates = false;
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
    if (!this.#replacement.withholds(exit)) this.#worker?.send({ kind: 'exit', exit });
  }

  #ended(worker: WorkerProcess, servedMs: number | undefined, why: string): void {
    this.#alive.delete(worker);
    if (![...this.#alive].some(({ socket }) => socket === worker.socket))
      rmSync(worker.socket, { force: true });
    if (worker !== this.#worker) return; // it has been replaced, or was to follow
    if (this.#first !== undefined) this.#first.reject(new Error(`the shim's worker could not start: ${why}`));
    else if (!this.#replacement.loses({ servedMs, why })) this.#workerEnded({ servedMs, why });
  }

  #workerEnded(end: WorkerEnd): void {
    this.#serves = false;
    this.#worker = undefined;
    if (this.#leaving) {
      for (const session of this.#sessions) session.end();
      for (const path of this.#options.workerSockets) rmSync(path, { force: true });
      this.#exits.close();
      this.#leave();
      return;
    }
    this.#vacancy ??= setTimeout(() => this.#vacate(), PATIENCE_MS);
    this.#overdue ??= setTimeout(() => this.#giveUp(), OVERDUE_MS);
    const { reason, pauseMs } = this.#restarts.after(end);
    const { refusal, failures } = this.#restarts;
    this.#turns.clear();
    for (const session of this.#sessions) {
      session.detach(reason);
      if (refusal !== undefined) session.refuse(refusal);
    }
    this.#log.error('the worker has ended, and is started again', { why: end.why, failures, pauseMs });
    setTimeout(() => this.#startWorker(), pauseMs);
  }

  /** No worker has served for a while. */
  #vacate(): void {
    this.#isVacant = true;
    for (const session of this.#sessions) session.vacate();
  }

  /** … and for so long that nobody is to wait any more: a start may hang, or take very long. */
  #giveUp(): void {
    this.#lateness = this.#restarts.refusalOf(
      `the shim has had no worker for ${OVERDUE_MS / 1000} s, as the next one ${this.#worker?.lacks ?? 'is not started'}`,
    );
    for (const session of this.#sessions) session.refuse(this.#lateness);
  }

  /** It has every task taken up: those that it leaves nothing for are no more. */
  #useDeposits(worker: WorkerProcess): void {
    this.#deposits = this.#left.get(worker) ?? this.#deposits;
  }

  async #answer(ask: Ask, asker: Socket): Promise<Answer> {
    try {
      return ask === 'status'
        ? { status: this.#status() }
        : { upgraded: await this.#replacement.upgrade(asker) };
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
      ...this.#restarts.state,
    };
  }

  /** What a replacement does here. */
  #asReplaced(): Replaced {
    return {
      worker: () => (this.#serves && !this.#leaving ? this.#worker : undefined),
      isCurrent: (worker) => this.#worker === worker,
      sessions: this.#sessions,
      log: this.#log,
      spawn: () => this.#spawn(),
      tryOut: (worker) => this.#begin(worker, true),
      use: (worker) => (this.#worker = worker),
      adopted: (worker) => this.#adopted(worker),
      ended: (end) => this.#workerEnded(end),
      state: (worker, asker) => this.#state(worker, asker),
    };
  }

  /** For the program that takes this one's place; undefined while something of it is here alone. */
  #state(worker: WorkerProcess, asker: GuardState['asker']): GuardState | undefined {
    const all = [worker, this.#outbox, ...this.#sessions];
    if (!all.every(({ isStill }) => isStill)) return undefined;
    return {
      options: this.#options,
      listeners: this.#listeners.map(descriptorOf),
      held: this.#held.entries,
      exits: this.#exits.kept,
      sessions: [...this.#sessions].map(({ state }) => state),
      outbox: this.#outbox.state,
      deposits: this.#left.get(worker)?.entries ?? [],
      notes: this.#notes.fd,
      worker: worker.state,
      ...this.#restarts.state,
      terminates: this.#terminates,
      asker,
    };
  }

  #adopted(worker: WorkerProcess): void {
    this.#useDeposits(worker);
    worker.send({ kind: 'adopted' });
    for (const exit of this.#exits.kept) worker.send({ kind: 'exit', exit });
    this.#turns.clear();
    this.#turns.isUsed = worker.hello?.anyOrder === true;
    for (const session of this.#sessions) session.handOver(worker.socket);
    if (this.#terminates) worker.send({ kind: 'terminate' });
  }
}
