import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FailedPrecondition, hasErrno } from '../../src/errors.ts';
import { explainGone } from '../../src/oci/bundle-gone.ts';
import type { OciRuntime } from '../../src/oci/types.ts';
import { openIo, type IoContext, type StdioAddresses } from '../stdio/index.ts';
import { finished, readPid, send } from './init.ts';
import { Process } from './process.ts';
import { execStates, StateMachine, type ExecStateName, type ExecVerb } from './state.ts';

export interface ExecProcessOptions {
  readonly id: string;
  readonly containerId: string;
  readonly bundle: string;
  readonly stdio: StdioAddresses;
  readonly runtime: OciRuntime;
  readonly io: IoContext;
  readonly socketFolder: string;
  /** The container's first process. */
  readonly init: () => number;
  /** OCI `process`. */
  readonly process: Record<string, unknown>;
  /** What it was when an earlier worker wrote it down; undefined for one that is to be made. */
  readonly state?: ExecStateName;
}

/** A process that joins a running container. */
export class ExecProcess extends Process<ExecStateName, ExecVerb> {
  readonly #options: ExecProcessOptions;
  #size: readonly [number, number] | undefined;

  constructor(options: ExecProcessOptions) {
    super(options.id, options.stdio, new StateMachine(execStates, options.state ?? 'created'));
    this.#options = options;
  }

  /** A start that fails leaves the process created: it can be deleted, and who waits is answered. */
  async start(): Promise<void> {
    this.state.require('start');
    const { stdio, io, socketFolder } = this.#options;
    const streams = await openIo(stdio, io, socketFolder);
    this.io = streams;
    try {
      await this.#run(streams.childFds, streams.consoleSocket).finally(() => streams.handedOver());
      if (this.#size !== undefined) streams.resize(...this.#size);
      await streams.started();
      streams.takeInput();
    } catch (error) {
      streams.close();
      this.io = undefined;
      this.endWait();
      throw error;
    }
    this.state.to('running');
  }

  /** The pid of one whose start an earlier worker did not come to the end of, if that has come to be. */
  pidOfStart(): number | undefined {
    try {
      return readPid(this.#files.pidFile);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  /** It is written down what became of the start: until then its files tell the worker that follows, which would start it again. */
  startNoted(): void {
    const { pidFile, processFile } = this.#files;
    for (const file of [processFile, pidFile]) rmSync(file, { force: true });
  }

  get #files(): { readonly pidFile: string; readonly processFile: string } {
    const { bundle } = this.#options;
    return { pidFile: join(bundle, `${this.id}.pid`), processFile: join(bundle, `${this.id}.process.json`) };
  }

  async #run(
    stdioFds: readonly [number | 'ignore', number | 'ignore', number | 'ignore'],
    consoleSocket: string | undefined,
  ): Promise<void> {
    const { containerId, bundle, runtime, stdio } = this.#options;
    const { pidFile, processFile } = this.#files;
    const process = { ...this.#options.process, terminal: stdio.terminal };
    // On this thread, as in readPid.
    try {
      rmSync(pidFile, { force: true });
      writeFileSync(processFile, JSON.stringify(process), { mode: 0o600 });
    } catch (error) {
      throw explainGone(error, containerId, bundle);
    }
    try {
      await runtime.exec({
        id: containerId,
        processFile,
        pidFile,
        stdioFds,
        detach: true,
        init: this.#options.init(),
        ...(consoleSocket === undefined ? {} : { consoleSocket }),
      });
      this.pid = readPid(pidFile);
    } catch (error) {
      this.startNoted();
      throw error;
    }
  }

  /** @throws FailedPrecondition before the start, NotFound after the end */
  signal(signal: number): void {
    this.state.require('kill');
    if (this.isGone) throw finished();
    if (this.pid === 0) throw new FailedPrecondition('process not created');
    send(this.pid, signal);
  }

  resize(columns: number, rows: number): void {
    this.state.require('resize');
    this.#size = [columns, rows];
    this.io?.resize(columns, rows);
  }

  async delete(): Promise<void> {
    this.state.require('delete');
    if (this.state.name === 'stopped') await this.drain();
    this.io?.close();
    this.state.to('deleted');
  }
}
