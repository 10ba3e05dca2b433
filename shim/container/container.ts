import { join } from 'node:path';
import { messageOf, NotFound } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import type { Options } from '../../src/proto/gen/containerd/runc_options.ts';
import type { CreateTaskRequest, ExecProcessRequest } from '../../src/proto/gen/containerd/task.ts';
import type { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import { ExecProcess } from '../process/exec.ts';
import { InitProcess, notCreated, sendIfAlive } from '../process/init.ts';
import { criuFolder } from '../process/restore.ts';
import type { InitStateName } from '../process/state.ts';
import type { Exit } from '../reaper/reaper.ts';
import { together } from '../together.ts';
import { Accounting } from './accounting.ts';
import { TaskBook } from './book.ts';
import type { ShimContext } from './context.ts';
import { Execs } from './execs.ts';
import { openFill, type ContainerFill } from './fill.ts';
import { goOn } from './go-on.ts';
import { InitEnd } from './init-end.ts';
import { LeftFill } from './left-fill.ts';
import { pause, thawEnded } from './pause.ts';
import { Queue } from './queue.ts';
import type { RecordFile, TaskRecord } from './record.ts';
import { RootDisk } from './root-disk.ts';
import { unmountBelow } from './rootfs.ts';
import { openContainerRuntime, type ContainerRuntime } from './runtime.ts';
import type { ContainerSpec } from './spec.ts';
import { Streams } from './streams.ts';

const SIGKILL = 9;

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
  /** Brings the memory of a restored container in while it runs; undefined where it was all there at once. */
  readonly fill: ContainerFill | undefined;
  readonly accounting = new Accounting();
  readonly #context: ShimContext;
  readonly #spec: ContainerSpec;
  readonly #log: Logger;
  readonly #streams: Streams;
  readonly #execs: Execs;
  readonly #book: TaskBook;
  readonly #end: InitEnd;

  private constructor(context: ShimContext, parts: ContainerParts, runtime: ContainerRuntime) {
    const { request, options, spec, record, log, left } = parts;
    const { id, bundle, rootfs: mounts } = request;
    const { accounting } = this;
    this.id = id;
    this.bundle = bundle;
    this.rootfs = join(bundle, 'rootfs');
    this.request = request;
    this.runtime = runtime;
    this.disk = new RootDisk({ ...context, id, mounts, rootfs: this.rootfs, log });
    this.#context = context;
    this.#spec = spec;
    this.#log = log;
    this.#streams = new Streams(context, id, options);
    const checkpoint = request.checkpoint || options.criuImagePath;
    const restore = { imageDir: checkpoint, workDir: options.criuWorkPath || join(bundle, 'work') };
    this.fill =
      left?.fill !== undefined
        ? new LeftFill(left.fill, context.reaper, accounting, log)
        : checkpoint === '' || left !== undefined
          ? undefined
          : openFill(context, restore, this, log);
    this.init = new InitProcess({
      id,
      bundle,
      stdio: request,
      runtime: runtime.door,
      io: this.#streams.of(''),
      socketFolder: context.socketFolder,
      noPivot: options.noPivotRoot,
      noNewKeyring: options.noNewKeyring,
      startsSpecially: spec.startsSpecially,
      restore: checkpoint === '' ? undefined : { ...restore, fill: this.fill },
      state: left?.state as InitStateName | undefined,
    });
    const { disk, fill, init } = this;
    const execs = (): Execs => this.#execs;
    this.#book = new TaskBook({
      ...{ context, file: record, request, disk, fill, init, accounting, execs },
      runtime: runtime.record,
    });
    const { save } = this.#book;
    this.#end = new InitEnd({
      ...{ init, accounting, fill, events: context.events, log, save },
      sharesPids: spec.sharesPids,
      systemdCgroup: runtime.record.systemdCgroup,
    });
    this.#execs = new Execs({
      ...{ containerId: id, bundle, context, accounting, save },
      runtime: runtime.door,
      streams: this.#streams,
      order: this.#end.order,
      init: () => this.pid,
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
    const { id, init, accounting, queue } = container;
    const [execs, end, book, streams] = [
      container.#execs,
      container.#end,
      container.#book,
      container.#streams,
    ];
    const task = { id, init, accounting, queue, execs, end, book, streams, context };
    await goOn({ ...task, onOom: container.#onOom, log: parts.log }, parts.left, whenAlone);
    return container;
  }

  get pid(): number {
    return this.init.pid;
  }

  /** By exec id. */
  get execs(): ReadonlyMap<string, ExecProcess> {
    return this.#execs.processes;
  }

  /** How one of the execs has ended that were deleted last. */
  findDeleted(execId: string): { readonly pid: number; readonly exit: Exit | undefined } | undefined {
    return this.#execs.findDeleted(execId);
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
      ? this.queue.share(() => this.#execs.start(process))
      : this.queue.run(() => this.#startInit());
  }

  /** Adds a process that Start will run. @throws AlreadyExists; FailedPrecondition where none can join */
  exec(request: ExecProcessRequest): void {
    this.#execs.assertNew(request.execId);
    this.init.state.require('exec');
    this.#execs.add(request);
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
      this.#book.save();
    });
  }

  resume(): Promise<void> {
    return this.queue.run(async () => {
      this.init.state.require('resume');
      await this.accounting.freezer().thaw();
      this.init.state.to('running');
      this.#context.events.publish('resumed', { containerId: this.id });
      this.#book.save();
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
      await this.#execs.delete(process);
      return process;
    }
    return this.queue.run(async () => {
      if (this.init.state.name === 'stopped') await thawEnded(this).catch(() => undefined); // there is no freezer
      if (this.init.state.name === 'stopped' && !this.#spec.hasPoststop) {
        // Nobody looks at its files any more: to unmount an overlay takes as long as the runtime does.
        await together(this.init.delete(), this.#unmount());
      } else {
        await this.init.delete();
        await this.#unmount();
      }
      // What a worker has left that was ended right after it had answered a restore.
      if (this.#context.kept !== undefined) await unmountBelow(criuFolder(this.bundle));
      this.#execs.close();
      this.accounting.close();
      await this.fill?.remove();
      this.#book.finish(answer());
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
    const { events, reaper } = this.#context;
    const { request } = this;
    this.#book.open();
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
      if (this.pid !== 0) this.#end.watch(expectation);
      committed = true;
      this.#book.made();
    } finally {
      if (!committed) await this.#abandon();
      expectation.close();
    }
  }

  #unmount(): Promise<void> {
    return this.disk.unmount(this.init.imageDir !== undefined);
  }

  async #abandon(): Promise<void> {
    this.accounting.close();
    this.fill?.stop();
    const forgotten = await this.init.abandon();
    try {
      await this.#unmount();
      // What is left otherwise is for the shim binary's `delete`, which reads the record.
      if (forgotten) this.#book.remove();
    } catch (error) {
      this.#log.error('the root file system could not be unmounted', { error: messageOf(error) });
    }
  }

  readonly #onOom = (): void => {
    this.#context.events.publish('oom', { containerId: this.id });
    this.#book.save();
  };

  /** What can be known of the first process only once it exists. */
  async #learn(): Promise<void> {
    this.#book.born();
    await this.accounting.learn(this.pid, this.#onOom);
  }

  async #startInit(): Promise<number> {
    this.init.state.require('start');
    const expectation = this.#context.reaper.expect();
    const restores = this.pid === 0;
    this.#book.starting(true);
    this.#end.order.starting();
    try {
      await this.init.start(this.disk.isLate ? () => this.disk.mountLate() : undefined);
      if (restores) await this.#learn();
      this.fill?.restored();
      this.#context.events.publish('start', { containerId: this.id, pid: this.pid });
      if (restores) this.#end.watch(expectation);
      this.#book.save();
    } finally {
      this.#book.starting(false);
      expectation.close();
      this.#end.order.announced();
    }
    await this.disk.keep();
    this.#book.save();
    return this.pid;
  }
}
