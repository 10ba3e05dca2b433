import type { CreateTaskRequest } from '../../src/proto/gen/containerd/task.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import type { InitProcess } from '../process/init.ts';
import { depositsOf } from '../worker/deposit.ts';
import type { Accounting } from './accounting.ts';
import type { ShimContext } from './context.ts';
import type { Execs } from './execs.ts';
import type { ContainerFill } from './fill.ts';
import { exitRecord, type RecordFile, type TakeUp, type TaskRecord } from './record.ts';
import type { RootDisk } from './root-disk.ts';
import type { ContainerRuntime } from './runtime.ts';
import { encodeCreate, programOf } from './take-up.ts';

/** What a task's record tells of. */
export interface BookParts {
  readonly context: Pick<ShimContext, 'namespace' | 'self' | 'socket' | 'kept'>;
  readonly file: RecordFile;
  readonly request: CreateTaskRequest;
  readonly disk: RootDisk;
  readonly fill: ContainerFill | undefined;
  readonly runtime: ContainerRuntime['record'];
  readonly init: InitProcess;
  readonly accounting: Accounting;
  readonly execs: () => Execs;
}

/** Keeps a task's record up to date, and the answers that the guard has for whoever cannot wait. */
export class TaskBook {
  readonly #parts: BookParts;
  #startTime = '';
  #made = false;
  #starting = false;
  #waitingAs = '';
  /** Of its request, which does not change. */
  #encoded = '';
  /** With which pid answers were left; undefined where none were. */
  #deposited: number | undefined;

  constructor(parts: BookParts) {
    this.#parts = parts;
  }

  /** Begins the record of a task that is being made. On failure nothing of it is left. @throws ENOSPC */
  open(): void {
    const { file, context } = this.#parts;
    try {
      file.create(context.socket, this.#describe());
    } catch (error) {
      file.remove();
      throw error;
    }
  }

  /** By the end of this turn; at once where another worker may have to go on. */
  readonly save = (): void => {
    this.#parts.file.save(() => this.#describe());
    this.#deposit();
  };

  /** Goes on with what an earlier worker has written. */
  takeUp({ startTime, takeUp }: TaskRecord): void {
    this.#made = true;
    this.#startTime = startTime;
    this.#waitingAs = takeUp?.waitingAs ?? '';
  }

  /** The first process exists. */
  born(): void {
    const { init } = this.#parts;
    this.#startTime = startTimeOf(init.pid);
    if (this.#isKept) this.#waitingAs = programOf(init.pid);
  }

  /** Create has come to its end. */
  made(): void {
    this.#made = true;
    this.save();
  }

  /** Whether Start is at work, which is for the worker that follows alone. */
  starting(isAtWork: boolean): void {
    this.#starting = isAtWork;
    if (this.#isKept) this.save();
  }

  /** See RecordFile. */
  finish(answer: string): void {
    this.#parts.file.finish(answer);
    this.#withdraw();
  }

  /** See RecordFile. */
  remove(): void {
    this.#parts.file.remove();
    this.#withdraw();
  }

  #deposit(): void {
    const { context, init, request } = this.#parts;
    if (!this.#made || this.#deposited === init.pid) return;
    this.#deposited = init.pid;
    context.kept?.depository.deposit(request.id, depositsOf(request.id, context.self.pid, init.pid));
  }

  #withdraw(): void {
    if (this.#deposited !== undefined)
      this.#parts.context.kept?.depository.deposit(this.#parts.request.id, []);
    this.#deposited = undefined;
    this.#made = false; // whatever is written down afterwards
  }

  get #isKept(): boolean {
    return this.#parts.context.kept !== undefined;
  }

  #describe(): TaskRecord {
    const { context, request, disk, fill, runtime, init, execs } = this.#parts;
    return {
      version: 1,
      shim: context.self,
      id: request.id,
      namespace: context.namespace,
      bundle: request.bundle,
      rootfs: disk.mounts,
      terminal: request.terminal,
      stdin: request.stdin,
      stdout: request.stdout,
      stderr: request.stderr,
      checkpoint: request.checkpoint,
      ...(fill === undefined ? {} : { fill: fill.folder }),
      runtime,
      state: init.state.name,
      pid: init.pid,
      startTime: this.#startTime,
      ...exitRecord(init.exit),
      execs: [...execs().processes.values()].map(({ id, pid, state }) => ({ id, pid, state: state.name })),
      ...(this.#isKept ? { takeUp: this.#describeTakeUp() } : {}),
    };
  }

  #describeTakeUp(): TakeUp {
    const { request, accounting, execs } = this.#parts;
    return {
      request: (this.#encoded ||= encodeCreate(request)),
      made: this.#made,
      starting: this.#starting,
      waitingAs: this.#waitingAs,
      cgroup: accounting.cgroup?.path ?? '',
      oomKills: String(accounting.oomKills),
      ...execs().describe(),
    };
  }
}
