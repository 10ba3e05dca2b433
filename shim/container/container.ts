import { join } from 'node:path';
import { AlreadyExists, messageOf, NotFound } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import type { Options } from '../../src/proto/gen/containerd/runc_options.ts';
import type { CreateTaskRequest, ExecProcessRequest } from '../../src/proto/gen/containerd/task.ts';
import type { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import { ExecProcess } from '../process/exec.ts';
import { InitProcess, notCreated, sendIfAlive } from '../process/init.ts';
import type { Exit, Expectation } from '../reaper/reaper.ts';
import type { ExecStateName, InitStateName } from '../process/state.ts';
import {
  abandonKeptIo,
  dropKeptIo,
  takeKeptIo,
  type IoContext,
  type ProcessIo,
  type StdioAddresses,
} from '../stdio/index.ts';
import { timestamp } from '../timestamp.ts';
import { together } from '../together.ts';
import { Accounting } from './accounting.ts';
import type { ShimContext } from './context.ts';
import { ExitOrder } from './exit-order.ts';
import { openFill, type ContainerFill } from './fill.ts';
import { LeftFill } from './left-fill.ts';
import { readJson } from '../../src/containerd/task-options.ts';
import { pause, thawEnded } from './pause.ts';
import { Queue } from './queue.ts';
import {
  exitOf,
  exitRecord,
  type ExecTakeUp,
  type RecordFile,
  type TakeUp,
  type TaskRecord,
} from './record.ts';
import { RootDisk } from './root-disk.ts';
import { openContainerRuntime, type ContainerRuntime } from './runtime.ts';
import type { ContainerSpec } from './spec.ts';
import {
  decodeExec,
  describeExec,
  encodeCreate,
  encodeExec,
  hasStarted,
  programOf,
  type KnownExec,
} from './take-up.ts';

const SIGKILL = 9;
/** How many deleted execs are remembered. */
const MAX_DELETED = 16;
/** How long the client's streams of an exec are kept that an earlier worker could not start: requests come again at once. */
const AGAIN_MS = 30_000;

export interface ContainerParts {
  readonly request: CreateTaskRequest;
  readonly options: Options;
  readonly spec: ContainerSpec;
  readonly record: RecordFile;
  readonly log: Logger;
  /** What an earlier worker wrote down of it; undefined for one that is to be made. */
  readonly left?: TaskRecord;
}

/**
 * One task.
 *
 * INVARIANTS
 * - What changes the container as a whole (start, pause, resume, checkpoint, update, delete) runs alone in its queue;
 *   starts of execs run there beside each other. Questions and signals pass the queue by.
 * - What happens is written down before anybody is told, with a guard, so that a worker can follow at any instant. An event is in its
 *   journal before what it tells of is written down: one that is told again is known there.
 * - Events: create, start, exit, delete for the first process; exec-added, exec-started, exit for the others. The first
 *   process's exit is the last exit. No exit precedes the event of its start.
 */
export class Container {
  readonly id: string;
  readonly bundle: string;
  readonly rootfs: string;
  readonly request: CreateTaskRequest;
  readonly init: InitProcess;
  readonly runtime: ContainerRuntime;
  readonly disk: RootDisk;
  readonly queue = new Queue();
  readonly execs = new Map<string, ExecProcess>();
  /** Brings the memory of a restored container in while it runs; undefined where it was all there at once. */
  readonly fill: ContainerFill | undefined;
  readonly accounting = new Accounting();
  readonly #context: ShimContext;
  readonly #spec: ContainerSpec;
  readonly #record: RecordFile;
  readonly #log: Logger;
  readonly #io: IoContext;
  readonly #order = new ExitOrder((exit) => void this.#endInit(exit));
  #startTime = '';
  #made = false;
  #starting = false;
  #waitingAs = '';
  readonly #known = new Map<string, KnownExec>();
  #deleted: TakeUp['deleted'] = [];

  private constructor(context: ShimContext, parts: ContainerParts, runtime: ContainerRuntime) {
    const { request, options, spec, record, log, left } = parts;
    this.id = request.id;
    this.bundle = request.bundle;
    this.rootfs = join(request.bundle, 'rootfs');
    this.request = request;
    this.runtime = runtime;
    const { id, rootfs: mounts } = request;
    this.disk = new RootDisk({ ...context, id, mounts, rootfs: this.rootfs, log });
    this.#context = context;
    this.#spec = spec;
    this.#record = record;
    this.#log = log;
    this.#io = {
      containerId: request.id,
      namespace: context.namespace,
      owner: { uid: options.ioUid, gid: options.ioGid },
    };
    const checkpoint = request.checkpoint || options.criuImagePath;
    const restore = { imageDir: checkpoint, workDir: options.criuWorkPath || join(request.bundle, 'work') };
    this.fill =
      left?.fill !== undefined
        ? new LeftFill(left.fill, context.reaper, this.accounting, log)
        : checkpoint === '' || left !== undefined
          ? undefined
          : openFill(context, restore, this, log);
    this.init = new InitProcess({
      id: request.id,
      bundle: request.bundle,
      stdio: request,
      runtime: runtime.door,
      io: this.#ioOf(''),
      socketFolder: context.socketFolder,
      noPivot: options.noPivotRoot,
      noNewKeyring: options.noNewKeyring,
      startsSpecially: spec.startsSpecially,
      restore: checkpoint === '' ? undefined : { ...restore, fill: this.fill },
      state: left?.state as InitStateName | undefined,
    });
  }

  /**
   * Makes the container, up to the point where Start lets it run, and announces it.
   * On failure nothing of it is left, and nothing announced.
   */
  static async create(context: ShimContext, parts: ContainerParts): Promise<Container> {
    const runtime = await openContainerRuntime(context, parts.request, parts.options, parts.spec);
    const container = new Container(context, parts, runtime);
    await container.#create();
    return container;
  }

  /**
   * Goes on with a task that an earlier worker has made. What is still under way of what that one did is dealt with in the task's
   * queue, before anything that is asked for now.
   * @param whenAlone waits until no program of the earlier worker's is at work any more
   */
  static async takeUp(
    context: ShimContext,
    parts: ContainerParts & { readonly left: TaskRecord },
    whenAlone: () => Promise<void>,
  ): Promise<Container> {
    const runtime = await openContainerRuntime(context, parts.request, parts.options, parts.spec, {
      isNew: false,
    });
    const container = new Container(context, parts, runtime);
    await container.#takeUp(parts.left, whenAlone);
    return container;
  }

  get pid(): number {
    return this.init.pid;
  }

  /** How one of the execs has ended that were deleted last. */
  findDeleted(execId: string): { readonly pid: number; readonly exit: Exit | undefined } | undefined {
    const found = this.#deleted.find(({ id }) => id === execId);
    if (found === undefined) return undefined;
    const { pid, exit } = found;
    return { pid, exit: exit === undefined ? undefined : exitOf(pid, exit) };
  }

  /** Where a process's streams are kept: the first one's have no exec id. */
  #ioOf(execId: string): IoContext {
    const { kept } = this.#context;
    return kept === undefined
      ? this.#io
      : { ...this.#io, kept: { ...kept, prefix: `io/${this.id}/${execId}/` } };
  }

  get namespace(): string {
    return this.#context.namespace;
  }

  get isPaused(): boolean {
    return this.init.state.name === 'paused';
  }

  /** @throws NotFound for an unknown exec id */
  process(execId: string): InitProcess | ExecProcess {
    if (execId === '') return this.init;
    const exec = this.execs.get(execId);
    if (exec === undefined) throw new NotFound(`process does not exist ${execId}`, { subject: execId });
    return exec;
  }

  /** Lets a created process run; answers its pid. */
  start(execId: string): Promise<number> {
    const process = this.process(execId);
    return process instanceof ExecProcess
      ? this.queue.share(() => this.#startExec(process))
      : this.queue.run(() => this.#startInit());
  }

  /** Adds a process that Start will run. */
  exec(request: ExecProcessRequest): void {
    const { execId } = request;
    if (this.execs.has(execId)) throw new AlreadyExists(`id ${execId}`, { subject: execId });
    this.init.state.require('exec');
    this.#add(request);
    this.#context.events.publish('exec-added', { containerId: this.id, execId });
    this.#save();
  }

  #add(request: ExecProcessRequest, left: { readonly state?: ExecStateName } = {}): KnownExec {
    const { execId } = request;
    const process = new ExecProcess({
      id: execId,
      containerId: this.id,
      bundle: this.bundle,
      stdio: request,
      runtime: this.runtime.door,
      io: this.#ioOf(execId),
      socketFolder: this.#context.socketFolder,
      init: () => this.pid,
      process: readJson(request.spec, 'process spec'),
      ...left,
    });
    this.execs.set(execId, process);
    const known = {
      process,
      request: this.#isKept ? encodeExec(request) : '',
      starting: false,
      startTime: '',
    };
    this.#known.set(execId, known);
    return known;
  }

  get #isKept(): boolean {
    return this.#context.kept !== undefined;
  }

  /** Sends a signal to one process, or to all of the container. */
  async kill(execId: string, signal: number, all: boolean): Promise<void> {
    const process = this.process(execId);
    if (all && process instanceof InitProcess) {
      process.state.require('kill');
      if (process.pid === 0) throw notCreated();
      if (process.exit !== undefined) return; // nobody is left of all
      for (const pid of await this.accounting.ownPids(process.pid)) sendIfAlive(pid, signal);
    } else {
      process.signal(signal);
    }
    // cgroup v1: the frozen die when they are thawed.
    if (signal === SIGKILL && this.isPaused && this.accounting.cgroup?.version === 1) {
      await this.accounting.freezer().thaw();
    }
  }

  pause(): Promise<void> {
    return this.queue.run(async () => {
      await pause(this);
      this.#context.events.publish('paused', { containerId: this.id });
      this.#save();
    });
  }

  resume(): Promise<void> {
    return this.queue.run(async () => {
      this.init.state.require('resume');
      await this.accounting.freezer().thaw();
      this.init.state.to('running');
      this.#context.events.publish('resumed', { containerId: this.id });
      this.#save();
    });
  }

  /** @param resources OCI LinuxResources as JSON */
  update(resources: string): Promise<void> {
    return this.queue.run(async () => {
      this.init.state.require('update');
      await this.runtime.door.update(this.id, resources);
    });
  }

  /**
   * Takes an exec away, or the container with its mounts.
   * @param answer what the shim binary's `delete` will have to say, asked when the container is gone
   */
  async delete(execId: string, answer: () => string): Promise<InitProcess | ExecProcess> {
    const process = this.process(execId);
    if (process instanceof ExecProcess) {
      await process.delete();
      this.execs.delete(execId);
      this.#known.delete(execId);
      const ended = { id: execId, pid: process.pid, ...exitRecord(process.exit) };
      this.#deleted = [ended, ...this.#deleted.filter(({ id }) => id !== execId)].slice(0, MAX_DELETED);
      this.#save();
      this.#context.reaper.forget(process.pid);
      return process;
    }
    return this.queue.run(async () => {
      if (this.init.state.name === 'stopped') await thawEnded(this).catch(() => undefined); // there is no freezer
      if (this.init.state.name === 'stopped' && !this.#spec.hasPoststop) {
        // Nobody looks at its files any more: to unmount an overlay takes as long as the runtime does.
        await together(this.init.delete(), this.disk.unmount());
      } else {
        await this.init.delete();
        await this.disk.unmount();
      }
      for (const exec of this.execs.values()) exec.io?.close();
      this.accounting.close();
      await this.fill?.remove();
      this.#record.finish(answer());
      for (const { pid } of [this.init, ...this.execs.values()]) this.#context.reaper.forget(pid);
      return this.init;
    });
  }

  stats(): Promise<Any> {
    return this.accounting.stats();
  }

  pids(): Promise<number[]> {
    return this.accounting.pids();
  }

  async #create(): Promise<void> {
    const { events, reaper, socket } = this.#context;
    const { request } = this;
    this.#record.create(socket, this.#describe());
    const expectation = reaper.expect();
    let committed = false;
    try {
      await together(this.disk.mount(this.init.imageDir), this.init.connect());
      await this.init.create(this.disk.isLate);
      if (this.pid !== 0) await this.#learn();
      const { bundle, pid } = this;
      const { checkpoint, stdin, stdout, stderr, terminal } = request;
      const rootfs = this.disk.mounts.map((mount) => ({ ...mount, options: [...mount.options] }));
      const io = { stdin, stdout, stderr, terminal };
      events.publish('create', { containerId: this.id, bundle, rootfs, io, checkpoint, pid });
      if (this.pid !== 0) this.#watchInit(expectation);
      committed = this.#made = true;
      this.#save();
    } finally {
      if (!committed) await this.#abandon();
      expectation.close();
    }
  }

  async #abandon(): Promise<void> {
    this.accounting.close();
    this.fill?.stop();
    const forgotten = await this.init.abandon();
    try {
      await this.disk.unmount();
      // What is left otherwise is for the shim binary's `delete`, which reads the record.
      if (forgotten) this.#record.remove();
    } catch (error) {
      this.#log.error('the root file system could not be unmounted', { error: messageOf(error) });
    }
  }

  readonly #onOom = (): void => this.#context.events.publish('oom', { containerId: this.id });

  /** What can be known of the first process only once it exists. */
  async #learn(): Promise<void> {
    this.#startTime = startTimeOf(this.pid);
    if (this.#isKept) this.#waitingAs = programOf(this.pid);
    await this.accounting.learn(this.pid, this.#onOom);
  }

  async #startInit(): Promise<number> {
    this.init.state.require('start');
    const expectation = this.#context.reaper.expect();
    const restores = this.pid === 0;
    this.#starting = true;
    if (this.#isKept) this.#save();
    this.#order.starting();
    try {
      await this.init.start(this.disk.isLate ? () => this.disk.mountLate() : undefined);
      if (restores) await this.#learn();
      this.fill?.restored();
      this.#context.events.publish('start', { containerId: this.id, pid: this.pid });
      if (restores) this.#watchInit(expectation);
      this.#save();
    } finally {
      this.#starting = false;
      if (this.#isKept) this.#save();
      expectation.close();
      this.#order.announced();
    }
    await this.disk.keep();
    this.#save();
    return this.pid;
  }

  async #startExec(exec: ExecProcess): Promise<number> {
    this.#order.execStarting(this.id);
    const known = this.#known.get(exec.id);
    if (known !== undefined) known.starting = true;
    if (this.#isKept) this.#save();
    const expectation = this.#context.reaper.expect();
    let committed = false;
    try {
      await exec.start();
      this.#execStarted(exec, known, expectation);
      committed = true;
      return exec.pid;
    } finally {
      if (known !== undefined) known.starting = false;
      if (!committed) this.#order.execEnded();
      if (!committed && this.#isKept) this.#save();
      expectation.close();
    }
  }

  #execStarted(exec: ExecProcess, known: KnownExec | undefined, expectation: Expectation): void {
    const { pid } = exec;
    this.#context.events.publish('exec-started', { containerId: this.id, execId: exec.id, pid });
    expectation.claim(pid, (exit) => this.#endExec(exec, exit));
    if (known !== undefined) {
      known.starting = false;
      known.startTime = startTimeOf(pid);
    }
    this.#save();
  }

  #endExec(exec: ExecProcess, exit: Exit): void {
    exec.state.to('stopped');
    exec.setExited(exit);
    this.accounting.checkOom();
    this.#publishExit(exec.id, exit);
    this.#order.execEnded();
  }

  #watchInit(expectation: Expectation): void {
    expectation.claim(this.pid, (exit) => void this.#initEnded(exit));
  }

  /** The first process is gone. Where others share its pid namespace they go with it. */
  async #initEnded(exit: Exit): Promise<void> {
    this.init.hasGone();
    this.#order.initGone();
    if (this.#spec.sharesPids) {
      await this.accounting.kill().catch((error: unknown) => {
        this.#log.error('the processes of an ended container could not be killed', {
          error: messageOf(error),
        });
      });
    }
    this.#order.initEnded(exit);
  }

  async #endInit(exit: Exit): Promise<void> {
    this.fill?.stop();
    if (this.isPaused) {
      await this.accounting
        .freezer()
        .thaw()
        .catch(() => undefined);
    }
    if (this.runtime.record.systemdCgroup) await this.accounting.remember();
    if (this.init.state.name !== 'deleted') this.init.state.to('stopped'); // else deleted before it was started
    this.init.setExited(exit);
    this.accounting.checkOom();
    this.#publishExit(this.id, exit);
  }

  #publishExit(id: string, exit: Exit): void {
    const { pid, status: exitStatus } = exit;
    const exitedAt = timestamp(exit);
    this.#context.events.publish('exit', { containerId: this.id, id, pid, exitStatus, exitedAt });
    this.#save();
  }

  #save(): void {
    this.#record.save(() => this.#describe());
  }

  #describe(): TaskRecord {
    const { request, init } = this;
    const { exit } = init;
    return {
      version: 1,
      shim: this.#context.self,
      id: this.id,
      namespace: this.#context.namespace,
      bundle: this.bundle,
      rootfs: this.disk.mounts,
      terminal: request.terminal,
      stdin: request.stdin,
      stdout: request.stdout,
      stderr: request.stderr,
      checkpoint: request.checkpoint,
      ...(this.fill === undefined ? {} : { fill: this.fill.folder }),
      runtime: this.runtime.record,
      state: init.state.name,
      pid: init.pid,
      startTime: this.#startTime,
      ...exitRecord(exit),
      execs: [...this.execs.values()].map(({ id, pid, state }) => ({ id, pid, state: state.name })),
      ...(this.#isKept ? { takeUp: this.#describeTakeUp() } : {}),
    };
  }

  #describeTakeUp(): TakeUp {
    return {
      request: (this.#encoded ||= encodeCreate(this.request)),
      made: this.#made,
      starting: this.#starting,
      waitingAs: this.#waitingAs,
      cgroup: this.accounting.cgroup?.path ?? '',
      execs: [...this.#known.values()].map(describeExec),
      deleted: this.#deleted,
    };
  }

  /** Of its request, which does not change. */
  #encoded = '';

  async #takeUp(left: TaskRecord, whenAlone: () => Promise<void>): Promise<void> {
    const { takeUp } = left;
    const expectation = this.#context.reaper.expect();
    this.#made = true;
    this.#startTime = left.startTime;
    this.#waitingAs = takeUp?.waitingAs ?? '';
    this.#deleted = takeUp?.deleted ?? [];
    const exit = left.exit === undefined ? undefined : exitOf(left.pid, left.exit);
    const started = this.init.state.name === 'created' && hasStarted(left);
    const runs = this.init.state.name !== 'created' || started;
    this.init.takeUp(left.pid, exit, this.#takeStreams(this.init, '', runs && exit === undefined));
    if (takeUp !== undefined && takeUp.cgroup !== '')
      await this.accounting.learnAt(takeUp.cgroup, this.#onOom);
    if (started) {
      this.init.state.to('running');
      this.#context.events.publish('start', { containerId: this.id, pid: this.pid });
    }
    const unfinished = left.execs.flatMap(({ id, pid, state }) => {
      const saved = takeUp?.execs.find((exec) => exec.id === id);
      return saved !== undefined && this.#takeUpExec(saved, pid, state as ExecStateName, expectation)
        ? [id]
        : [];
    });
    if (exit !== undefined) this.#order.initGone();
    else if (this.pid !== 0) this.#watchInit(expectation);
    this.#save();
    void this.queue
      .run(async () => {
        if (unfinished.length > 0 || (await this.#isLeftFrozen())) await whenAlone();
        for (const id of unfinished) await this.#finishExec(id, expectation);
        if (await this.#isLeftFrozen()) await this.accounting.freezer().thaw();
      })
      .catch((error: unknown) => {
        this.#log.error('what an earlier worker had begun could not be brought to an end', {
          error: messageOf(error),
        });
      })
      .finally(() => expectation.close());
  }

  /** Those that the worker before has left with the guard. */
  #takeStreams(
    { stdio }: { stdio: StdioAddresses },
    execId: string,
    takesInput: boolean,
  ): ProcessIo | undefined {
    const io = this.#ioOf(execId);
    return io.kept === undefined ? undefined : takeKeptIo(stdio, io, io.kept, takesInput);
  }

  /** Of an exec that did not come to be; whoever has asked for its start may ask again. */
  #abandonStreams(execId: string): void {
    const { kept } = this.#ioOf(execId);
    if (kept === undefined) return;
    abandonKeptIo(kept);
    setTimeout(() => {
      const isUsed = this.execs.get(execId)?.io !== undefined || this.#known.get(execId)?.starting === true;
      if (!isUsed) dropKeptIo(kept);
    }, AGAIN_MS).unref();
  }

  /** A checkpoint was under way: nobody else freezes a container that is not paused. */
  async #isLeftFrozen(): Promise<boolean> {
    if (this.init.state.name !== 'running' || this.accounting.cgroup === undefined) return false;
    return this.accounting.freezer().isFrozen();
  }

  /** @returns whether its start was under way */
  #takeUpExec(saved: ExecTakeUp, pid: number, state: ExecStateName, expectation: Expectation): boolean {
    const known = this.#add(decodeExec(saved), { state });
    const { process } = known;
    known.startTime = saved.startTime;
    if (saved.starting) return true;
    const exit = saved.exit === undefined ? undefined : exitOf(pid, saved.exit);
    process.takeUp(pid, exit, this.#takeStreams(process, process.id, state === 'running'));
    if (state === 'running') {
      this.#order.execStarting(this.id);
      expectation.claim(pid, (ended) => this.#endExec(process, ended));
    }
    return false;
  }

  /** The OCI runtime has gone on without the worker that called it: either there is a process now, or there is none and none comes. */
  async #finishExec(id: string, expectation: Expectation): Promise<void> {
    const known = this.#known.get(id);
    if (known === undefined) return;
    const { process } = known;
    const pid = process.pidOfStart();
    if (pid === undefined || process.stdio.terminal) {
      if (pid !== undefined) sendIfAlive(pid, SIGKILL); // its terminal went to the worker that is no more
      this.#abandonStreams(id);
      this.#save();
      return;
    }
    process.takeUp(pid, undefined, this.#takeStreams(process, id, true));
    process.state.to('running');
    this.#order.execStarting(this.id);
    this.#execStarted(process, known, expectation);
  }
}
