import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Code,
  FailedPrecondition,
  hasErrno,
  messageOf,
  NotFound,
  StasisError,
  Unavailable,
} from '../../src/errors.ts';
import { isOciError } from '../../src/oci/error.ts';
import type { FirstProcess, OciRuntime } from '../../src/oci/types.ts';
import type { ContainerFill } from '../container/fill.ts';
import { openIo, type IoContext, type StdioAddresses } from '../stdio/index.ts';
import { together } from '../together.ts';
import { Process } from './process.ts';
import { PreparedRestore } from './restore.ts';
import { initStates, StateMachine, type InitStateName, type InitVerb } from './state.ts';

export interface Restore {
  readonly imageDir: string;
  readonly workDir: string;
  /** Brings the memory in while the container runs; undefined where it is all there when Start returns. */
  readonly fill: ContainerFill | undefined;
}

export interface InitOptions {
  readonly id: string;
  readonly bundle: string;
  readonly stdio: StdioAddresses;
  readonly runtime: OciRuntime;
  readonly io: IoContext;
  readonly socketFolder: string;
  readonly noPivot: boolean;
  readonly noNewKeyring: boolean;
  /** Whether its start is more than that its process goes on: the runtime's program is called for it then. */
  readonly startsSpecially: boolean;
  /** Images to restore from at Start; undefined for a usual process. */
  readonly restore: Restore | undefined;
  /** What it was when an earlier worker wrote it down; undefined for one that is to be made. */
  readonly state: InitStateName | undefined;
}

/** Milliseconds after a restore until its mounts are taken away. */
const UNPREPARE_MS = 20;

/** A container's first process. Its callers serialise the verbs; its state says which are possible. */
export class InitProcess extends Process<InitStateName, InitVerb> {
  readonly #options: InitOptions;
  readonly #gone = new AbortController();
  /** Whether the OCI runtime knows the container. */
  #made = false;
  #prepared: PreparedRestore | undefined;
  #unpreparing: Promise<void> | undefined;
  /** The start of the page server, where Create has not waited for it. */
  #filling: Promise<void> = Promise.resolve();

  constructor(options: InitOptions) {
    const first = options.restore === undefined ? 'created' : 'restorable';
    super(options.id, options.stdio, new StateMachine(initStates, options.state ?? first));
    this.#options = options;
    this.#made = options.state !== undefined;
  }

  /** Images to restore from; undefined for a usual process. */
  get imageDir(): string | undefined {
    return this.#options.restore?.imageDir;
  }

  /** Connects the streams. */
  async connect(): Promise<void> {
    const { stdio, io, socketFolder, restore } = this.#options;
    this.io = await openIo(stdio, { ...io, piped: restore !== undefined }, socketFolder);
  }

  /**
   * Has the runtime make the container; where a checkpoint is to be restored, makes ready for that.
   * @param isDiskLate whether the root file system comes with `start`, which then follows soon
   */
  async create(isDiskLate: boolean): Promise<void> {
    const { restore, runtime, id, bundle, noPivot } = this.#options;
    if (restore !== undefined) {
      const { imageDir, workDir, fill } = restore;
      const preparing = PreparedRestore.prepare(runtime, { id, bundle, imageDir, workDir });
      const lazyPages = fill !== undefined;
      const ready = preparing.then((prepared) => {
        this.#prepared = prepared;
        if (isDiskLate) prepared.begin({ ...this.#common(), noPivot, lazyPages });
      });
      const filling = fill?.start() ?? Promise.resolve();
      if (isDiskLate) {
        // CRIU comes to the page server's socket only after `start`, which waits for the disk anyway.
        this.#filling = filling;
        filling.catch(() => undefined); // start tells of it
        await ready;
      } else {
        await together(ready, filling);
      }
      return;
    }
    await this.#launch(async (common) => {
      const { noPivot, noNewKeyring } = this.#options;
      await runtime.create({ id, bundle, noPivot, noNewKeyring, ...common });
    });
  }

  get #first(): FirstProcess {
    const first = { pid: this.pid, ended: this.#gone.signal };
    const { kept } = this.#options.io;
    if (kept === undefined) return first;
    const { keeper, prefix } = kept;
    const name = `${prefix}start`;
    return {
      ...first,
      openFifo: async (path, flags) => ({
        fd: await keeper.open(name, path, flags),
        letGo: () => keeper.drop([name]),
      }),
    };
  }

  /** @param disk brings the root file system, where a restore begins before it is there */
  async start(disk?: () => Promise<void>): Promise<void> {
    this.state.require('start');
    const { runtime, restore, id, noPivot, startsSpecially } = this.#options;
    if (restore === undefined) {
      await runtime.start(id, startsSpecially ? {} : { first: this.#first });
    } else {
      const prepared = this.#prepared;
      if (prepared === undefined) throw restoreLost(id);
      const lazyPages = restore.fill !== undefined;
      try {
        const late = disk === undefined ? undefined : () => together(disk(), this.#filling);
        await this.#launch((common) => prepared.run({ ...common, noPivot, lazyPages }, late));
      } catch (error) {
        // What the runtime has made of it nobody would delete: this task has not become one.
        await runtime.delete(id, { force: true }).catch(() => undefined);
        const lost = restore.fill?.lost;
        restore.fill?.stop();
        throw lost === undefined ? error : memoryLost(id, lost);
      }
      // Nobody waits for that but Delete; first the client gets its answer.
      this.#unpreparing = sleep(UNPREPARE_MS)
        .then(() => this.#unprepare())
        .catch(() => undefined);
    }
    this.io?.takeInput();
    this.state.to('running');
  }

  override hasGone(): void {
    super.hasGone();
    this.#gone.abort();
  }

  /** Runs the runtime with the streams of the process to be, and learns its pid. */
  async #launch(run: (common: Launch) => Promise<void>): Promise<void> {
    const common = this.#common();
    try {
      await run(common);
      this.#made = true;
    } finally {
      this.io?.handedOver();
    }
    await this.io?.started();
    this.pid = readPid(common.pidFile);
  }

  #common(): Launch {
    const { io } = this;
    if (io === undefined) throw new StasisError(Code.Unknown, 'the streams are not connected');
    const { childFds: stdioFds, consoleSocket } = io;
    const pidFile = join(this.#options.bundle, 'init.pid');
    return { pidFile, stdioFds, ...(consoleSocket === undefined ? {} : { consoleSocket }) };
  }

  /**
   * Sends a signal to the process.
   * @throws NotFound when it has ended
   */
  signal(signal: number): void {
    this.state.require('kill');
    if (this.isGone) throw finished();
    if (this.pid === 0) throw notCreated();
    send(this.pid, signal);
  }

  /** Nothing where there is no terminal. */
  resize(columns: number, rows: number): void {
    this.io?.resize(columns, rows);
  }

  /** Takes everything away that the runtime and the streams hold. */
  async delete(): Promise<void> {
    this.state.require('delete');
    if (this.state.name === 'stopped') await this.drain();
    await this.#forget(false);
    this.io?.close();
    this.state.to('deleted');
    if (this.pid === 0) this.endWait(); // a restore that never came to be has no exit that could end it
  }

  /** Undoes a Create that failed. @returns whether no trace of the container stays */
  async abandon(): Promise<boolean> {
    this.#made = true; // even a create that failed may have left something
    try {
      await this.#forget(true);
      return true;
    } catch {
      return false;
    } finally {
      this.io?.close();
    }
  }

  async #unprepare(): Promise<void> {
    const prepared = this.#prepared;
    this.#prepared = undefined;
    await prepared?.[Symbol.asyncDispose]();
  }

  async #forget(force: boolean): Promise<void> {
    await this.#unpreparing;
    await this.#unprepare();
    if (!this.#made) return;
    try {
      const { runtime, restore } = this.#options;
      // What CRIU has restored may be more than the runtime wrote down of it.
      const ended =
        !force && restore === undefined && this.exit !== undefined ? { ended: this.exit.pid } : {};
      await runtime.delete(this.id, { force, ...ended });
    } catch (error) {
      // After a checkpoint that ended the task the runtime has forgotten it already, and so does a client's own delete.
      if (!isOciError(error, 'not-found')) throw error;
    }
  }
}

/**
 * Reads what a runtime has just written into the bundle. On this thread: the page cache has it, and a trip through one of
 * libuv's threads takes longer than the rest of what a client waits for here.
 */
export function readPid(path: string): number {
  return Number(readFileSync(path, 'utf8'));
}

interface Launch {
  readonly pidFile: string;
  readonly stdioFds: readonly [number | 'ignore', number | 'ignore', number | 'ignore'];
  readonly consoleSocket?: string;
}

export function finished(): NotFound {
  return new NotFound('process already finished');
}

/** A restore that was made ready by a worker that is no more. */
function restoreLost(id: string): Unavailable {
  return new Unavailable(
    `the shim's worker has ended between Create and Start of ${id}, and what it had made ready for the restore is gone`,
    { subject: id, remedy: 'delete the task and create it again from the checkpoint' },
  );
}

function memoryLost(id: string, why: string): FailedPrecondition {
  return new FailedPrecondition(`the memory of ${id} could not be brought in: ${why}`, {
    subject: id,
    reason: 'memory-lost',
  });
}

/**
 * Of a restore that was not started. Not "not found": to that `ctr tasks rm -f` waits for an exit, which never comes.
 */
export function notCreated(): FailedPrecondition {
  return new FailedPrecondition('process not created');
}

/** kill(2), with its failures as clients know them. */
export function send(pid: number, signal: number): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (hasErrno(error, 'ESRCH')) throw finished();
    const invalid = hasErrno(error, 'EINVAL') || hasErrno(error, 'ERR_UNKNOWN_SIGNAL');
    const reason = invalid ? 'invalid argument' : messageOf(error);
    throw new StasisError(Code.Unknown, `unknown error after kill: ${reason}`, { cause: error });
  }
}

/** The same for one of many, which may have ended with another of them. */
export function sendIfAlive(pid: number, signal: number): void {
  try {
    send(pid, signal);
  } catch (error) {
    if (!(error instanceof NotFound)) throw error;
  }
}
