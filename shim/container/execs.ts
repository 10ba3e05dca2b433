import { readJson } from '../../src/containerd/task-options.ts';
import { AlreadyExists } from '../../src/errors.ts';
import type { OciRuntime } from '../../src/oci/types.ts';
import type { ExecProcessRequest } from '../../src/proto/gen/containerd/task.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import { ExecProcess } from '../process/exec.ts';
import { sendIfAlive } from '../process/init.ts';
import type { ExecStateName } from '../process/state.ts';
import type { Exit, Expectation } from '../reaper/reaper.ts';
import type { Accounting } from './accounting.ts';
import type { ShimContext } from './context.ts';
import { publishExit } from './exit-event.ts';
import type { ExitOrder } from './exit-order.ts';
import { exitOf, exitRecord, type ExecTakeUp, type TakeUp, type TaskRecord } from './record.ts';
import type { Streams } from './streams.ts';
import { decodeExec, describeExec, encodeExec, type KnownExec } from './take-up.ts';

const SIGKILL = 9;
/** How many deleted execs are remembered. */
const MAX_DELETED = 16;

/** What of a container its execs need. */
export interface ExecsParts {
  readonly containerId: string;
  readonly bundle: string;
  readonly context: Pick<ShimContext, 'events' | 'reaper' | 'socketFolder'>;
  readonly runtime: OciRuntime;
  readonly streams: Streams;
  readonly accounting: Accounting;
  readonly order: ExitOrder;
  /** The container's first process. */
  readonly init: () => number;
  /** Writes the task's record. */
  readonly save: () => void;
}

/** The processes that have joined a container, from when they are added until they are deleted. */
export class Execs {
  readonly #parts: ExecsParts;
  readonly #processes = new Map<string, ExecProcess>();
  readonly #known = new Map<string, KnownExec>();
  #deleted: TakeUp['deleted'] = [];

  constructor(parts: ExecsParts) {
    this.#parts = parts;
  }

  /** By exec id. */
  get processes(): ReadonlyMap<string, ExecProcess> {
    return this.#processes;
  }

  /** Adds a process that Start will run. @throws AlreadyExists; InvalidArgument for a specification that is none */
  add(request: ExecProcessRequest): void {
    const { execId } = request;
    const { containerId, context, save } = this.#parts;
    this.#add(request);
    context.events.publish('exec-added', { containerId, execId });
    save();
  }

  /** @throws AlreadyExists */
  assertNew(execId: string): void {
    if (this.#processes.has(execId)) throw new AlreadyExists(`id ${execId}`, { subject: execId });
  }

  #add(request: ExecProcessRequest, left: { readonly state?: ExecStateName } = {}): KnownExec {
    const { execId } = request;
    const { containerId, bundle, runtime, streams, context, init } = this.#parts;
    const process = new ExecProcess({
      id: execId,
      containerId,
      bundle,
      stdio: request,
      runtime,
      io: streams.of(execId),
      socketFolder: context.socketFolder,
      init,
      process: readJson(request.spec, 'process spec'),
      ...left,
    });
    this.#processes.set(execId, process);
    const known = {
      process,
      request: streams.areKept ? encodeExec(request) : '',
      starting: false,
      startTime: '',
    };
    this.#known.set(execId, known);
    return known;
  }

  /** Runs a process that was added; answers its pid. @throws FailedPrecondition after the first process has ended */
  async start(exec: ExecProcess): Promise<number> {
    const { order, containerId, context, streams, save } = this.#parts;
    order.execStarting(containerId);
    try {
      exec.state.require('start'); // before it is written down that one is under way, which the worker that follows would look for
    } catch (error) {
      order.execEnded();
      throw error;
    }
    const known = this.#known.get(exec.id);
    if (known !== undefined) known.starting = true;
    if (streams.areKept) save();
    const expectation = context.reaper.expect();
    let committed = false;
    try {
      await exec.start();
      this.#started(exec, known, expectation);
      committed = true;
      return exec.pid;
    } finally {
      if (known !== undefined) known.starting = false;
      if (!committed) order.execEnded();
      if (!committed && streams.areKept) save();
      if (!committed) exec.startNoted();
      expectation.close();
    }
  }

  #started(exec: ExecProcess, known: KnownExec | undefined, expectation: Expectation): void {
    const { pid } = exec;
    const { containerId, context, save } = this.#parts;
    context.events.publish('exec-started', { containerId, execId: exec.id, pid });
    expectation.claim(pid, (exit) => void this.#ended(exec, exit));
    if (known !== undefined) {
      known.starting = false;
      known.startTime = startTimeOf(pid);
    }
    save();
    exec.startNoted();
  }

  async #ended(exec: ExecProcess, exit: Exit): Promise<void> {
    const { accounting, context, containerId, order, save } = this.#parts;
    exec.hasGone();
    await exec.outputTaken();
    exec.state.to('stopped');
    exec.setExited(exit);
    accounting.checkOom();
    publishExit(context.events, containerId, exec.id, exit);
    save();
    order.execEnded();
  }

  /** Takes one away that has ended, or was never started. */
  async delete(process: ExecProcess): Promise<void> {
    const { id, pid } = process;
    const { context, save } = this.#parts;
    await process.delete();
    this.#processes.delete(id);
    this.#known.delete(id);
    const ended = { id, pid, ...exitRecord(process.exit) };
    this.#deleted = [ended, ...this.#deleted.filter((other) => other.id !== id)].slice(0, MAX_DELETED);
    save();
    context.reaper.forget(pid);
  }

  /** How one of those has ended that were deleted last. */
  findDeleted(execId: string): { readonly pid: number; readonly exit: Exit | undefined } | undefined {
    const found = this.#deleted.find(({ id }) => id === execId);
    if (found === undefined) return undefined;
    const { pid, exit } = found;
    return { pid, exit: exit === undefined ? undefined : exitOf(pid, exit) };
  }

  /** What the worker that follows needs of them. */
  describe(): Pick<TakeUp, 'execs' | 'deleted'> {
    return { execs: [...this.#known.values()].map(describeExec), deleted: this.#deleted };
  }

  /**
   * Goes on with those of an earlier worker.
   * @returns the ids of those whose start was under way, for `finish`
   */
  takeUp({ execs, takeUp }: TaskRecord, expectation: Expectation): string[] {
    this.#deleted = takeUp?.deleted ?? [];
    return execs.flatMap(({ id, pid, state }) => {
      const saved = takeUp?.execs.find((exec) => exec.id === id);
      return saved !== undefined && this.#takeUp(saved, pid, state as ExecStateName, expectation) ? [id] : [];
    });
  }

  /** @returns whether its start was under way */
  #takeUp(saved: ExecTakeUp, pid: number, state: ExecStateName, expectation: Expectation): boolean {
    const { streams, order, containerId } = this.#parts;
    const known = this.#add(decodeExec(saved), { state });
    const { process } = known;
    known.startTime = saved.startTime;
    if (state === 'created') {
      known.starting = saved.starting; // until `finish`: this worker may end before
      if (saved.starting) return true;
      this.#leaveToClient(saved.id);
      return false;
    }
    const exit = saved.exit === undefined ? undefined : exitOf(pid, saved.exit);
    process.takeUp(pid, exit, streams.take(process, process.id, state === 'running'));
    if (state === 'running') {
      order.execStarting(containerId);
      expectation.claim(pid, (ended) => void this.#ended(process, ended));
    }
    return false;
  }

  /** It does not run, and its start may be asked for again: until then the client is not to meet an end of its output. */
  #leaveToClient(id: string): void {
    const { streams } = this.#parts;
    streams.abandon(
      id,
      () => this.#processes.get(id)?.io !== undefined || this.#known.get(id)?.starting === true,
    );
  }

  /** The OCI runtime has gone on without the worker that called it: either there is a process now, or there is none and none comes. */
  finish(id: string, expectation: Expectation): void {
    const known = this.#known.get(id);
    if (known === undefined) return;
    const { streams, order, containerId, save } = this.#parts;
    const { process } = known;
    const pid = process.pidOfStart();
    if (pid === undefined || process.stdio.terminal) {
      if (pid !== undefined) sendIfAlive(pid, SIGKILL); // its terminal went to the worker that is no more
      known.starting = false;
      this.#leaveToClient(id);
      save();
      process.startNoted();
      return;
    }
    process.takeUp(pid, undefined, streams.take(process, id, true));
    process.state.to('running');
    order.execStarting(containerId);
    this.#started(process, known, expectation);
  }

  /** Lets go of all their streams. */
  close(): void {
    for (const { io } of this.#processes.values()) io?.close();
  }
}
