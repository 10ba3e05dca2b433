import { takeDescriptor, withPidFd } from '../../src/sys/pidfd.ts';
import { dieWithParent, startTimeOf } from '../../src/sys/process.ts';
import { FailedPrecondition, Unavailable } from '../../src/errors.ts';
import { programVersion } from '../../src/version.ts';
import {
  misfit,
  OLDEST_GUARD,
  PROTOCOL,
  type Begin,
  type Deposit,
  type ExitNote,
  type Hello,
  type ToGuard,
  type ToWorker,
} from '../guard/messages.ts';
import type { Keeper } from '../stdio/keeper.ts';
import type { Depository } from './deposit.ts';
import type { Caller } from './guarded-courier.ts';

const hello: Hello = {
  kind: 'hello',
  version: programVersion,
  protocol: PROTOCOL,
  oldestGuard: OLDEST_GUARD,
  anyOrder: true,
};

/**
 * The worker's end of the channel to its guard.
 *
 * INVARIANTS
 * - A worker does not outlive its guard.
 * - What `hold` has settled for outlives the worker.
 */
export class GuardLink implements Keeper, Caller, Depository {
  readonly begin: Begin;
  readonly pid = process.ppid;
  readonly startTime = startTimeOf(process.ppid);
  readonly #held: Map<string, number>;
  readonly #called = new Map<string, PromiseWithResolvers<Uint8Array>>();
  readonly #calls = new Map<number, { resolve: (fd: number) => void; reject: (error: Error) => void }>();
  #lastCall = 0;
  #exited: ((exit: ExitNote) => void) | undefined;
  #terminate: (() => boolean) | undefined;
  #quiesce: () => Promise<string | undefined> = async () => undefined;
  #adopt: () => void = () => undefined;
  /** Settles when no other worker would go on should this one fail. */
  readonly adopted: Promise<void>;
  readonly #early: ExitNote[] = [];
  readonly #deposits = new Map<string, readonly Deposit[]>();

  private constructor(begin: Begin) {
    this.begin = begin;
    this.adopted = begin.trial ? new Promise((resolve) => (this.#adopt = resolve)) : Promise.resolve();
    this.#held = new Map(begin.held);
    // The guard's program may be another one by then, which knows of what the one before did not.
    if (begin.trial)
      void this.adopted.then(() => {
        for (const [task, deposits] of this.#deposits) this.#send({ kind: 'deposit', task, deposits });
      });
  }

  /** Waits for what the guard gives a worker that begins. @throws Unavailable where no guard has started this process */
  static async open(): Promise<GuardLink> {
    if (!process.connected) throw new Unavailable('a worker is started by its guard alone');
    dieWithParent();
    // The guard is gone: nothing of this process may go on, nor wait for its threads.
    process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
    process.send?.(hello);
    return new Promise((resolve, reject) => {
      let link: GuardLink | undefined;
      process.on('message', (message: ToWorker) => {
        if (message.kind === 'begin') {
          const why = misfit(message.protocol, hello);
          if (why === undefined) resolve((link = new GuardLink(message)));
          else
            reject(
              new FailedPrecondition(why, {
                remedy: 'end the containers of this shim, or install a version that fits',
              }),
            );
        } else if (link !== undefined) link.#receive(message);
      });
    });
  }

  /** Ends are told from now on, those included that came before. */
  onExit(listener: (exit: ExitNote) => void): void {
    this.#exited = listener;
    for (const exit of this.#early.splice(0)) listener(exit);
  }

  /** SIGTERM, which the guard gets. @param listener answers whether this process leaves */
  onTerminate(listener: () => boolean): void {
    this.#terminate = listener;
  }

  /** Another worker is to follow. @param settle comes to the end of what is under way; answers what it could not go on with */
  onQuiesce(settle: () => Promise<string | undefined>): void {
    this.#quiesce = settle;
  }

  hold(name: string, fd: number): Promise<void> {
    const call = ++this.#lastCall;
    this.#held.delete(name); // the guard's number of it is another one from now on
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve: () => resolve(), reject });
      this.#send({ kind: 'hold', call, name, fd });
    });
  }

  open(name: string, path: string, flags: number): Promise<number> {
    const call = ++this.#lastCall;
    this.#held.delete(name);
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      this.#send({ kind: 'open', call, name, path, flags });
    });
  }

  take(name: string): number | undefined {
    const fd = this.#held.get(name);
    return fd === undefined ? undefined : this.takeFrom(fd);
  }

  /** @param fd one of the guard's @throws SysError where it does not have it (any more) */
  takeFrom(fd: number): number {
    return withPidFd(this.pid, (pidFd) => takeDescriptor(pidFd, fd));
  }

  drop(names: readonly string[]): void {
    for (const name of names) this.#held.delete(name);
    this.#send({ kind: 'drop', names });
  }

  /** Names of what earlier workers left in the guard. */
  get names(): string[] {
    return [...this.#held.keys()];
  }

  call(key: string, path: string, body: Uint8Array, afresh: boolean): Promise<Uint8Array> {
    const called = Promise.withResolvers<Uint8Array>();
    this.#called.set(key, called);
    this.#send({ kind: 'call', key, path, body: Buffer.from(body).toString('base64'), afresh });
    return called.promise;
  }

  deposit(task: string, deposits: readonly Deposit[]): void {
    if (deposits.length === 0) this.#deposits.delete(task);
    else this.#deposits.set(task, deposits);
    this.#send({ kind: 'deposit', task, deposits });
  }

  forget(pids: readonly number[]): void {
    this.#send({ kind: 'forget', pids });
  }

  ready(): void {
    this.#send({ kind: 'ready' });
  }

  leaving(): void {
    this.#send({ kind: 'leaving' });
  }

  #send(message: ToGuard): void {
    process.send?.(message);
  }

  #receive(message: ToWorker): void {
    switch (message.kind) {
      case 'ping':
        this.#send({ kind: 'pong' });
        return;
      case 'exit':
        if (this.#exited === undefined) this.#early.push(message.exit);
        else this.#exited(message.exit);
        return;
      case 'held': {
        const call = this.#calls.get(message.call);
        this.#calls.delete(message.call);
        if (message.error === undefined) call?.resolve(-1);
        else call?.reject(new Error(`the guard could not take a descriptor: ${message.error}`));
        return;
      }
      case 'opened': {
        const call = this.#calls.get(message.call);
        this.#calls.delete(message.call);
        if (message.error === undefined) call?.resolve(this.takeFrom(message.fd));
        else call?.reject(new Error(message.error));
        return;
      }
      case 'answered': {
        const { key, body, error } = message;
        const called = this.#called.get(key); // none where it was a worker's before this one
        this.#called.delete(key);
        if (body !== undefined) called?.resolve(Buffer.from(body, 'base64'));
        else called?.reject(new Error(error));
        return;
      }
      case 'terminate':
        if (this.#terminate?.() === false) this.#send({ kind: 'stays' });
        return;
      case 'quiesce':
        void this.#quiesce().then((obstacle) =>
          this.#send({ kind: 'quiet', ...(obstacle === undefined ? {} : { obstacle }) }),
        );
        return;
      case 'adopted':
        this.#adopt();
        return;
      case 'begin':
        return; // once in a life
    }
  }
}
