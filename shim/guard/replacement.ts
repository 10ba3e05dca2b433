// The worker is replaced by the installed version under running containers, and then the guard's own program.
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import type { Upgraded } from '../../src/shims/control.ts';
import { programVersion } from '../../src/version.ts';
import { misfit, PROTOCOL, type ExitNote, type Hello } from './messages.ts';
import { probe } from './probe.ts';
import type { WorkerEnd } from './restarts.ts';
import type { Hold, Session } from './session.ts';
import { become, checkSuccessor, descriptorOf, type GuardState, type Installed } from './successor.ts';
import type { WorkerProcess } from './worker-process.ts';

/** How long the program of a worker that is to follow may take to load … */
const HELLO_MS = 30_000;
/** … what is under way to come to its end: a request that changes something is kept back for that long at most … */
const QUIESCE_MS = 30_000;
/** … the worker that serves to say so … */
const QUIET_MS = 10_000;
/** … and the one that follows to take everything up, while nobody is answered. */
const TRIAL_MS = 10_000;
const POLL_MS = 10;
/** For how long requests are let through to a worker that has what another could not go on with. */
const OBSTACLE_MS = 50;
/** How long half a request, or an answer that a client does not take, is waited for before this program is replaced. */
const STILL_MS = 1000;
/** This program, which may be another one by now. */
const ownProgram = process.argv[1] ?? '';

/** What of the guard a replacement works on. */
export interface Replaced {
  /** The worker that serves, and goes on to; undefined where there is none. */
  readonly worker: () => WorkerProcess | undefined;
  /** Whether it is the guard's worker, serving or not. */
  readonly isCurrent: (worker: WorkerProcess) => boolean;
  readonly sessions: ReadonlySet<Session>;
  readonly log: Logger;
  /** Starts the installed version's program. */
  readonly spawn: () => WorkerProcess;
  /** Has it take everything up, and tell nobody: see Begin. */
  readonly tryOut: (worker: WorkerProcess) => void;
  /** It is the guard's worker from now on. */
  readonly use: (worker: WorkerProcess) => void;
  /** There is no other any more: it gets the connections, and all that waits. */
  readonly adopted: (worker: WorkerProcess) => void;
  readonly ended: (end: WorkerEnd) => void;
  /** For the program that takes the guard's place; undefined while something of it is here alone. */
  readonly state: (worker: WorkerProcess, asker: GuardState['asker']) => GuardState | undefined;
}

/** Replaces the worker and the guard's program, or goes back. */
export class Replacement {
  readonly #guard: Replaced;
  #isUnderWay = false;
  #hold: Hold = 'nothing';
  #withheld: ExitNote[] | undefined;
  #stands = false;
  #lost: WorkerEnd | undefined;
  #checked = 0;

  constructor(guard: Replaced) {
    this.#guard = guard;
  }

  /** Which requests are kept back for now. */
  get hold(): Hold {
    return this.#hold;
  }

  /** Whether the worker stands still. */
  get stands(): boolean {
    return this.#stands;
  }

  /** Process id of a program that is looked at, a child of libuv's; 0 where there is none. */
  get checked(): number {
    return this.#checked;
  }

  /** @returns whether this end is told later, to whichever worker goes on */
  withholds(exit: ExitNote): boolean {
    this.#withheld?.push(exit);
    return this.#withheld !== undefined;
  }

  /** @returns whether the worker that has ended was one that stood still: what follows is for the replacement to say */
  loses(end: WorkerEnd): boolean {
    if (this.#stands) this.#lost = end;
    return this.#stands;
  }

  /**
   * Replaces the worker by the installed version, and then this program. The worker that serves stands still until the other has taken
   * everything up and answered a question, and goes on if that does not happen.
   * @throws an Error with the reason where the worker was not replaced; it serves on
   */
  async upgrade(asker: Socket): Promise<Upgraded> {
    const old = this.#guard.worker();
    if (this.#isUnderWay) throw new Error('its worker is being replaced already');
    if (old === undefined) throw new Error('no worker serves now; the next one is of the installed version');
    const began = performance.now();
    this.#isUnderWay = true;
    const next = this.#guard.spawn();
    try {
      const hello = await next.heard('hello', HELLO_MS);
      const why = misfit(PROTOCOL, hello);
      if (why !== undefined) throw new Error(why);
      const successor = await this.#successor(hello);
      await this.#quiesce(old);
      this.#stands = true;
      await old.suspend();
      this.#guard.tryOut(next);
      await next.heard('ready', TRIAL_MS);
      await probe(next.socket);
      this.#guard.log.info('the worker is replaced', { from: old.hello?.version, to: hello.version });
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
      this.#guard.log.warn('the worker was not replaced', { why: messageOf(error) });
      throw error;
    } finally {
      this.#isUnderWay = false;
    }
  }

  /** Settles when the worker has nothing under way, and is given nothing. @throws an Error where that does not come to be in time */
  async #quiesce(old: WorkerProcess): Promise<void> {
    const deadline = performance.now() + QUIESCE_MS;
    for (;;) {
      this.#keepBack('changes');
      let [why] = this.#changing();
      let obstacle: string | undefined;
      if (why === undefined) {
        this.#withheld = [];
        old.send({ kind: 'quiesce' });
        ({ obstacle } = await old.heard('quiet', QUIET_MS));
        why = obstacle ?? this.#changing()[0];
        if (why === undefined && this.#guard.worker() === old) {
          this.#keepBack('all');
          return;
        }
        this.#tellWithheld(old);
      }
      if (this.#guard.worker() !== old) throw new Error('its worker has ended meanwhile');
      if (performance.now() > deadline)
        throw new Error(`${why} has not come to its end in ${QUIESCE_MS / 1000} s: try again afterwards`);
      if (obstacle !== undefined) this.#keepBack('nothing'); // a request may be what takes it away
      await sleep(obstacle === undefined ? POLL_MS : OBSTACLE_MS);
    }
  }

  #changing(): string[] {
    return [...this.#guard.sessions].flatMap((session) => session.changing);
  }

  #keepBack(hold: Hold): void {
    this.#hold = hold;
    for (const session of this.#guard.sessions) session.hold(hold);
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
      if (this.#guard.worker() !== worker) return;
      const state = this.#guard.state(worker, asker);
      if (state !== undefined) become(ownProgram, state);
      if (performance.now() > deadline) return;
      await sleep(POLL_MS);
    }
  }

  /** @param first is done while nobody is given anything */
  async #adopt(old: WorkerProcess, next: WorkerProcess, first: () => Promise<void>): Promise<void> {
    this.#guard.use(next);
    this.#stands = false;
    this.#lost = undefined;
    old.kill('it was replaced');
    await old.over;
    await first().catch((error: unknown) =>
      this.#guard.log.warn('the guard stays of its version', { why: messageOf(error) }),
    );
    this.#withheld = undefined;
    if (this.#guard.worker() === next) this.#guard.adopted(next);
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
      this.#guard.ended(lost);
    } else if (this.#guard.isCurrent(old)) {
      if (stood) old.resume();
      this.#tellWithheld(old);
      for (const session of this.#guard.sessions) if (!session.isAttached) session.attach(old.socket);
    }
    this.#withheld = undefined;
    this.#keepBack('nothing');
  }
}
