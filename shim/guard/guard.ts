import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { createLogger } from '../../src/log.ts';
import { Exits } from './exits.ts';
import { Held } from './held.ts';
import type { ToGuard } from './messages.ts';
import { Session } from './session.ts';
import { WorkerProcess } from './worker-process.ts';

/** After so many starts that failed in a row requests are refused, with the reason. */
const MAX_FAILED = 5;
/** One that ends sooner than that after it began to serve is not followed at once. */
const STEADY_MS = 300;
/** Milliseconds before the start that follows such a one, or a second failed one; doubled with each that fails after that … */
const FIRST_PAUSE_MS = 100;
/** … up to this. */
const LONGEST_PAUSE_MS = 5000;

export interface GuardOptions {
  /** What Node is called with for a worker. */
  readonly program: readonly string[];
  /** Where clients come, and where the worker listens for us. */
  readonly socket: string;
  readonly workerSocket: string;
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
  readonly #exits = new Exits(
    (pid) => pid === this.#worker?.pid,
    (exit) => this.#worker?.send({ kind: 'exit', exit }),
  );
  #listener: Server | undefined;
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

  constructor(options: GuardOptions) {
    this.#options = options;
    this.left = new Promise((resolve) => (this.#leave = resolve));
    process.on('SIGTERM', () => {
      this.#terminates = !this.#serves; // the next one is told
      this.#worker?.send({ kind: 'terminate' });
    });
  }

  /** Listens, and starts the worker; settles when it serves. @throws an Error with the reason when the first worker does not */
  async serve(): Promise<void> {
    await this.#listen();
    try {
      await new Promise<void>((resolve, reject) => {
        this.#first = { resolve, reject };
        this.#startWorker();
      });
    } catch (error) {
      rmSync(this.#options.socket, { force: true });
      throw error;
    }
  }

  /** The socket is for root alone from its first moment. */
  async #listen(): Promise<void> {
    const listener = createServer((client) => this.#accept(client));
    this.#listener = listener;
    const before = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        listener.once('error', reject);
        listener.listen(this.#options.socket, resolve);
      });
    } finally {
      process.umask(before);
    }
  }

  #accept(client: Socket): void {
    const session = new Session(client, () => this.#sessions.delete(session));
    this.#sessions.add(session);
    if (this.#serves) session.attach(this.#options.workerSocket);
    else if (this.#refusal !== undefined) session.refuse(this.#refusal);
  }

  #startWorker(): void {
    const { program, start, workerSocket: socket } = this.#options;
    rmSync(socket, { force: true });
    const worker = new WorkerProcess(program, {
      message: (message) => this.#receive(worker, message),
      ended: (servedMs, why) => {
        if (this.#first === undefined) this.#workerEnded(servedMs, why);
        else this.#first.reject(new Error(`the shim's worker could not start: ${why}`));
      },
    });
    this.#worker = worker;
    worker.send({ kind: 'begin', start, socket, held: this.#held.entries, exits: this.#exits.kept });
  }

  #receive(worker: WorkerProcess, message: ToGuard): void {
    switch (message.kind) {
      case 'ready':
        this.#serves = true;
        for (const session of this.#sessions) session.attach(this.#options.workerSocket);
        if (this.#terminates) worker.send({ kind: 'terminate' });
        this.#terminates = false;
        this.#first?.resolve();
        this.#first = undefined;
        return;
      case 'hold':
        this.#hold(worker, message);
        return;
      case 'drop':
        for (const name of message.names) this.#held.drop(name);
        return;
      case 'forget':
        this.#exits.forget(message.pids);
        return;
      case 'leaving':
        this.#leaving = true;
        rmSync(this.#options.socket, { force: true });
        this.#listener?.close();
        return;
      case 'pong':
        return; // WorkerProcess counts them
    }
  }

  #hold(worker: WorkerProcess, { call, name, fd }: ToGuard & { kind: 'hold' }): void {
    try {
      this.#held.hold(worker.pid, name, fd);
      worker.send({ kind: 'held', call });
    } catch (error) {
      worker.send({ kind: 'held', call, error: error instanceof Error ? error.message : String(error) });
    }
  }

  #workerEnded(servedMs: number | undefined, why: string): void {
    this.#serves = false;
    this.#worker = undefined;
    if (this.#leaving) {
      for (const session of this.#sessions) session.end();
      rmSync(this.#options.workerSocket, { force: true });
      this.#leave();
      return;
    }
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
}
