import { join } from 'node:path';
import { AlreadyExists, FailedPrecondition, messageOf, NotFound } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import { openRuntime } from '../../src/oci/runtime.ts';
import type { OciRuntime } from '../../src/oci/types.ts';
import type { Options } from '../../src/proto/gen/containerd/runc_options.ts';
import type { CreateTaskRequest, ExecProcessRequest } from '../../src/proto/gen/containerd/task.ts';
import { cgroupPids, findCgroup, type Cgroup } from '../../src/sys/cgroup.ts';
import { freezerOf } from '../../src/sys/cgroup-freezer.ts';
import { killCgroup } from '../../src/sys/cgroup-remove.ts';
import { ExecProcess } from '../process/exec.ts';
import { InitProcess, finished, send } from '../process/init.ts';
import type { Exit, Expectation } from '../reaper/reaper.ts';
import type { IoContext } from '../stdio/index.ts';
import { timestamp } from '../timestamp.ts';
import type { ShimContext } from './context.ts';
import { readJson } from './options.ts';
import { Queue } from './queue.ts';
import { startTimeOf, type RecordFile, type TaskRecord } from './record.ts';
import { mountRootfs, unmountRootfs } from './rootfs.ts';
import { isSystemdPath, type ContainerSpec } from './spec.ts';

const SIGKILL = 9;

export interface ContainerParts {
  readonly request: CreateTaskRequest;
  readonly options: Options;
  readonly spec: ContainerSpec;
  readonly record: RecordFile;
  readonly log: Logger;
}

/**
 * One task.
 *
 * INVARIANTS
 * - What changes the container as a whole (start, pause, resume, checkpoint, update, delete) runs alone in its queue;
 *   starts of execs run there beside each other. Questions and signals of it pass the queue by.
 * - Events: create, start, exit, delete for the first process; exec-added, exec-started, exit for the others. The first
 *   process's exit is the last exit. No exit precedes the event of its start.
 */
export class Container {
  readonly id: string;
  readonly bundle: string;
  readonly rootfs: string;
  readonly request: CreateTaskRequest;
  readonly spec: ContainerSpec;
  readonly init: InitProcess;
  readonly runtime: OciRuntime;
  readonly queue = new Queue();
  readonly execs = new Map<string, ExecProcess>();
  readonly #context: ShimContext;
  readonly #record: RecordFile;
  readonly #log: Logger;
  readonly #runtimeRecord: TaskRecord['runtime'];
  readonly #io: IoContext;
  #cgroup: Cgroup | undefined;
  #startTime = '';
  /** The first process's end while its start is not announced yet. */
  #heldExit: Exit | undefined;
  #holdsExit = false;
  #initExited = false;
  #runningExecs = 0;
  #onExecEnd: (() => void) | undefined;

  private constructor(
    context: ShimContext,
    parts: ContainerParts,
    runtime: OciRuntime,
    runtimeRecord: TaskRecord['runtime'],
  ) {
    const { request, options, spec, record, log } = parts;
    this.id = request.id;
    this.bundle = request.bundle;
    this.rootfs = join(request.bundle, 'rootfs');
    this.request = request;
    this.spec = spec;
    this.runtime = runtime;
    this.#context = context;
    this.#record = record;
    this.#log = log;
    this.#runtimeRecord = runtimeRecord;
    this.#io = {
      containerId: request.id,
      namespace: context.namespace,
      owner: { uid: options.ioUid, gid: options.ioGid },
    };
    const checkpoint = request.checkpoint || options.criuImagePath;
    this.init = new InitProcess({
      id: request.id,
      bundle: request.bundle,
      stdio: request,
      runtime,
      io: this.#io,
      socketFolder: context.socketFolder,
      noPivot: options.noPivotRoot,
      noNewKeyring: options.noNewKeyring,
      restore:
        checkpoint === ''
          ? undefined
          : { imageDir: checkpoint, workDir: options.criuWorkPath || join(request.bundle, 'work') },
    });
  }

  /**
   * Makes the container, up to the point where Start lets it run, and announces it.
   * On failure nothing of it is left, and nothing announced.
   */
  static async create(context: ShimContext, parts: ContainerParts): Promise<Container> {
    const { options, request, spec } = parts;
    const binary = await context.binaries.get(options.binaryName || context.config.runtime.oci);
    const runtimeRecord = {
      path: binary.path,
      root:
        options.root === ''
          ? context.paths.ociRoot(context.namespace)
          : join(options.root, context.namespace),
      systemdCgroup: options.systemdCgroup || isSystemdPath(spec.cgroupsPath),
    };
    const runtime = openRuntime({ exec: context.exec, binary, bundle: request.bundle, ...runtimeRecord });
    const container = new Container(context, parts, runtime, runtimeRecord);
    await container.#create();
    return container;
  }

  get pid(): number {
    return this.init.pid;
  }

  get cgroup(): Cgroup | undefined {
    return this.#cgroup;
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

  async start(execId: string): Promise<number> {
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
    const process = readJson(request.spec, 'process spec');
    this.execs.set(
      execId,
      new ExecProcess({
        id: execId,
        containerId: this.id,
        bundle: this.bundle,
        stdio: request,
        runtime: this.runtime,
        io: this.#io,
        socketFolder: this.#context.socketFolder,
        process,
      }),
    );
    this.#context.events.publish('exec-added', { containerId: this.id, execId });
    this.#save();
  }

  /** Sends a signal to one process, or to all of the container. */
  async kill(execId: string, signal: number, all: boolean): Promise<void> {
    const process = this.process(execId);
    if (!all || process instanceof ExecProcess) {
      process.signal(signal);
    } else {
      if (this.init.exit !== undefined || this.#cgroup === undefined) throw finished();
      for (const pid of await cgroupPids(this.#cgroup)) send(pid, signal);
    }
    // cgroup v1: the frozen die when they are thawed.
    if (signal === SIGKILL && this.isPaused && this.#cgroup?.version === 1)
      await freezerOf(this.#cgroup).thaw();
  }

  pause(): Promise<void> {
    return this.queue.run(async () => {
      this.init.state.require('pause');
      await this.#freezer().freeze();
      this.init.state.to('paused');
      this.#context.events.publish('paused', { containerId: this.id });
      this.#save();
    });
  }

  resume(): Promise<void> {
    return this.queue.run(async () => {
      this.init.state.require('resume');
      await this.#freezer().thaw();
      this.init.state.to('running');
      this.#context.events.publish('resumed', { containerId: this.id });
      this.#save();
    });
  }

  update(resources: string): Promise<void> {
    return this.queue.run(async () => {
      this.init.state.require('update');
      await this.runtime.update(this.id, resources);
    });
  }

  /** Takes an exec away, or the container with its mounts. @param answer what the binary's `delete` is to say */
  async delete(execId: string, answer: () => string): Promise<InitProcess | ExecProcess> {
    const process = this.process(execId);
    if (process instanceof ExecProcess) {
      await process.delete();
      this.execs.delete(execId);
      this.#save();
      return process;
    }
    return this.queue.run(async () => {
      await this.init.delete();
      await unmountRootfs(this.rootfs);
      for (const exec of this.execs.values()) exec.io?.close();
      await this.#record.finish(answer());
      return this.init;
    });
  }

  async pids(): Promise<number[]> {
    return this.#cgroup === undefined ? [] : cgroupPids(this.#cgroup);
  }

  async #create(): Promise<void> {
    const { events, reaper, socket } = this.#context;
    const { request } = this;
    await this.#record.create(socket, this.#describe());
    const expectation = reaper.expect();
    let committed = false;
    try {
      await mountRootfs(request.rootfs, this.rootfs);
      await this.init.create();
      if (this.pid !== 0) await this.#learn();
      events.publish('create', {
        containerId: this.id,
        bundle: this.bundle,
        rootfs: request.rootfs,
        io: {
          stdin: request.stdin,
          stdout: request.stdout,
          stderr: request.stderr,
          terminal: request.terminal,
        },
        checkpoint: request.checkpoint,
        pid: this.pid,
      });
      if (this.pid !== 0) this.#watchInit(expectation);
      committed = true;
      this.#save();
    } finally {
      if (!committed) await this.#abandon();
      expectation.close();
    }
  }

  async #abandon(): Promise<void> {
    await this.init.abandon();
    await unmountRootfs(this.rootfs).catch((error: unknown) => {
      this.#log.error('the root file system could not be unmounted', { error: messageOf(error) });
    });
  }

  /** What can be known of the first process only once it exists. */
  async #learn(): Promise<void> {
    [this.#cgroup, this.#startTime] = await Promise.all([
      findCgroup(this.pid).catch(() => undefined),
      startTimeOf(this.pid),
    ]);
  }

  async #startInit(): Promise<number> {
    this.init.state.require('start');
    const expectation = this.#context.reaper.expect();
    const restores = this.pid === 0;
    this.#holdsExit = true;
    try {
      await this.init.start();
      if (restores) await this.#learn();
      this.#context.events.publish('start', { containerId: this.id, pid: this.pid });
      if (restores) this.#watchInit(expectation);
    } finally {
      expectation.close();
      this.#holdsExit = false;
      if (this.#heldExit !== undefined) void this.#endInit(this.#heldExit);
    }
    this.#save();
    return this.pid;
  }

  async #startExec(exec: ExecProcess): Promise<number> {
    if (this.#initExited) throw new FailedPrecondition(`container ${this.id} init process is not running`);
    const expectation = this.#context.reaper.expect();
    this.#runningExecs++;
    let committed = false;
    try {
      await exec.start();
      const { pid } = exec;
      this.#context.events.publish('exec-started', { containerId: this.id, execId: exec.id, pid });
      expectation.claim(pid, (exit) => this.#endExec(exec, exit));
      committed = true;
      this.#save();
      return pid;
    } finally {
      if (!committed) this.#execEnded();
      expectation.close();
    }
  }

  #endExec(exec: ExecProcess, exit: Exit): void {
    exec.state.to('stopped');
    exec.setExited(exit);
    this.#publishExit(exec.id, exit);
    this.#execEnded();
  }

  #execEnded(): void {
    this.#runningExecs--;
    if (this.#runningExecs === 0) this.#onExecEnd?.();
  }

  #watchInit(expectation: Expectation): void {
    expectation.claim(this.pid, (exit) => {
      this.#initExited = true;
      if (this.#holdsExit) this.#heldExit = exit;
      else void this.#endInit(exit);
    });
  }

  /** The end of the first process, once the others have ended too. */
  async #endInit(exit: Exit): Promise<void> {
    if (this.spec.sharesPids && this.#cgroup !== undefined) {
      await killCgroup(this.#cgroup).catch((error: unknown) => {
        this.#log.error('the processes of an ended container could not be killed', {
          error: messageOf(error),
        });
      });
    }
    if (this.#runningExecs > 0) await new Promise<void>((resolve) => (this.#onExecEnd = resolve));
    if (this.isPaused) {
      await this.#freezer()
        .thaw()
        .catch(() => undefined);
    }
    if (this.init.state.name !== 'deleted') this.init.state.to('stopped'); // deleted before it was started
    this.init.setExited(exit);
    this.#publishExit(this.id, exit);
  }

  #publishExit(id: string, exit: Exit): void {
    this.#context.events.publish('exit', {
      containerId: this.id,
      id,
      pid: exit.pid,
      exitStatus: exit.status,
      exitedAt: timestamp(exit),
    });
    this.#save();
  }

  #freezer() {
    if (this.#cgroup === undefined)
      throw new FailedPrecondition(`the cgroup of container ${this.id} is not known`);
    return freezerOf(this.#cgroup);
  }

  #save(): void {
    this.#record.save(() => this.#describe());
  }

  #describe(): TaskRecord {
    const { request, init } = this;
    const { exit } = init;
    return {
      version: 1,
      id: this.id,
      namespace: this.#context.namespace,
      bundle: this.bundle,
      rootfs: request.rootfs,
      terminal: request.terminal,
      stdin: request.stdin,
      stdout: request.stdout,
      stderr: request.stderr,
      checkpoint: request.checkpoint,
      runtime: this.#runtimeRecord,
      state: init.state.name,
      pid: this.pid,
      startTime: this.#startTime,
      ...(exit === undefined
        ? {}
        : { exit: { status: exit.status, seconds: String(exit.at.seconds), nanos: exit.at.nanos } }),
      execs: [...this.execs.values()].map(({ id, pid, state }) => ({ id, pid, state: state.name })),
    };
  }
}
