import { openSync } from 'node:fs';
import { access } from 'node:fs/promises';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { hasErrno } from '../../src/errors.ts';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { together } from '../together.ts';
import { parseOutputAddress, type OutputAddress } from './address.ts';
import { Flow } from './flow.ts';
import { openFifoForReading, openFifoForWriting, type Input } from './fifo.ts';
import type { Kept } from './keeper.ts';
import { LogProgram } from './log-program.ts';
import { isFifo, openFile, passOn } from './output.ts';
import { Held, inputPipe, outputPipe, type Owner } from './pipes.ts';
import { untilTaken } from './taken.ts';
import type { ChildFds, ProcessIo, StdioAddresses } from './stdio.ts';

/** When a client's input is opened at the latest. Some open their end in between Create and Start, and wait for ours. */
const INPUT_AFTER_MS = 250;

export interface IoContext {
  readonly containerId: string;
  readonly namespace: string;
  readonly owner: Owner;
  /**
   * Pipes also where a stream leads nowhere. A process that is made opens its /dev/null anew inside; one that is restored
   * keeps what it is given, and the host's is a file from outside, with which it could never be dumped again. A stream whose
   * FIFO is not there leads nowhere too: the client of the task that was checkpointed, or rewound, has left.
   */
  readonly piped?: boolean;
  /** Where they are kept, so that they outlive this process; undefined where nobody keeps them. */
  readonly kept?: Kept;
}

/** Connects a process without a terminal. On failure nothing stays open. */
export async function openPipeIo(addresses: StdioAddresses, context: IoContext): Promise<ProcessIo> {
  const io = new PipeIo();
  try {
    await io.open(addresses, context);
    return io;
  } catch (error) {
    io.handedOver();
    io.close();
    throw error;
  }
}

class PipeIo implements ProcessIo {
  readonly consoleSocket = undefined;
  readonly #held = new Held();
  readonly #open: { destroy(): unknown }[] = [];
  readonly #copies: Promise<void>[] = [];
  readonly #outputs: [Readable, Writable][] = [];
  /** To FIFOs; `#outputs` go to files. */
  readonly #flows: Flow[] = [];
  /** To nowhere: nobody waits for their end. */
  readonly #sinks: Flow[] = [];
  #input: Input | undefined;
  #inputPath = '';
  #inputTaken = false;
  #inputClosed = false;
  #inputTimer: NodeJS.Timeout | undefined;
  #stdin: Writable | undefined;
  #program: LogProgram | undefined;
  #childFds: ChildFds = ['ignore', 'ignore', 'ignore'];

  get childFds(): ChildFds {
    return this.#childFds;
  }

  get drained(): Promise<void> {
    return Promise.all(this.#copies).then(() => undefined);
  }

  async taken(): Promise<void> {
    await untilTaken(this.#flows);
    for (const flow of this.#flows) flow.told();
  }

  async open(addresses: StdioAddresses, context: IoContext): Promise<void> {
    // As everywhere in containerd, the address of stdout decides the kind for both.
    const out = parseOutputAddress(addresses.stdout);
    const both = out.kind === 'file' || out.kind === 'program';
    const err = both ? out : parseOutputAddress(addresses.stderr);
    const stdin = this.#openInput(addresses.stdin, context);
    if (out.kind === 'program') {
      const input = await stdin;
      this.#program = await LogProgram.start({ ...context, ...out }, this.#held);
      this.#childFds = [input, this.#program.stdout, this.#program.stderr];
      this.#copies.push(this.#program.exited);
      return;
    }
    this.#childFds = await together<ChildFds>(
      stdin,
      this.#openOutput(out, context),
      this.#openOutput(err, context),
    );
  }

  /** Copying starts here, so that what a failing runtime writes to its own streams does not reach the client. */
  async started(): Promise<void> {
    this.#copies.push(...this.#outputs.map(([source, target]) => passOn(source, target)));
    for (const flow of this.#flows) {
      flow.start();
      this.#copies.push(flow.done);
    }
    for (const sink of this.#sinks) sink.start();
    if (this.#stdin !== undefined)
      this.#inputTimer = setTimeout(() => this.takeInput(), INPUT_AFTER_MS).unref();
  }

  takeInput(): void {
    clearTimeout(this.#inputTimer);
    const target = this.#stdin;
    if (this.#inputTaken || target === undefined || target.destroyed) return;
    this.#inputTaken = true;
    openFifoForReading(this.#inputPath).then(
      (input) => this.#connectInput(input, target),
      () => target.end(), // The client has taken its pipe away: that is an end too.
    );
  }

  #connectInput(input: Input, target: Writable): void {
    if (target.destroyed) {
      input.stream.destroy(); // closed meanwhile
      return;
    }
    this.#input = input;
    this.#open.push(input.stream);
    if (this.#inputClosed) input.release();
    // A process that closes its input takes the client's end with it.
    target.once('close', () => input.stream.destroy());
    input.stream.on('error', () => target.end());
    input.stream.pipe(target);
  }

  handedOver(): void {
    this.#held.release();
  }

  closeStdin(): void {
    this.#inputClosed = true;
    this.#input?.release();
  }

  resize(): void {
    // There is no terminal.
  }

  close(): void {
    clearTimeout(this.#inputTimer);
    this.#held.release();
    this.#input?.release();
    for (const stream of this.#open) stream.destroy();
    for (const flow of [...this.#flows, ...this.#sinks]) flow.close();
    void this.#program?.stop();
  }

  async #openInput(path: string, { owner, piped }: IoContext): Promise<number | 'ignore'> {
    if (path === '') return piped === true ? this.#endedInput(owner) : 'ignore';
    try {
      await access(path);
    } catch (error) {
      if (piped === true && hasErrno(error, 'ENOENT')) return this.#endedInput(owner);
      throw error;
    }
    this.#inputPath = path;
    const { childFd, stream } = await inputPipe(owner);
    this.#open.push(stream);
    this.#held.add(childFd);
    this.#stdin = stream;
    stream.on('error', () => undefined);
    return childFd;
  }

  /** Input that is at its end, as that of /dev/null is. */
  async #endedInput(owner: Owner): Promise<number> {
    const { childFd, stream } = await inputPipe(owner);
    stream.destroy();
    return this.#held.add(childFd);
  }

  async #openOutput(address: OutputAddress, { owner, piped }: IoContext): Promise<number | 'ignore'> {
    const nowhere = (): Promise<number> => this.#openFlow(openSync('/dev/null', 'w'), owner, this.#sinks);
    if (address.kind === 'none' && piped === true) return nowhere();
    if (address.kind === 'none' || address.kind === 'program') return 'ignore';
    try {
      return await this.#openNamed(address, owner);
    } catch (error) {
      if (piped === true && address.kind === 'path' && hasErrno(error, 'ENOENT')) return nowhere();
      throw error;
    }
  }

  async #openNamed(address: { kind: 'path' | 'file'; path: string }, owner: Owner): Promise<number> {
    if (address.kind === 'path' && (await isFifo(address.path)))
      return this.#openFlow(await openFifoForWriting(address.path), owner, this.#flows);
    const target = await openFile(address.path);
    this.#open.push(target);
    const { childFd, readFd } = await outputPipe(owner);
    const stream = new Socket({ fd: readFd, readable: true, writable: false });
    this.#open.push(stream);
    this.#outputs.push([stream, target]);
    return this.#held.add(childFd);
  }

  /** A pipe for the process, from which all goes to `target`. */
  async #openFlow(target: number, owner: Owner, flows: Flow[]): Promise<number> {
    const { childFd, readFd } = await outputPipe(owner).catch((error: unknown) => {
      closeQuietly(target);
      throw error;
    });
    flows.push(new Flow(readFd, target));
    return this.#held.add(childFd);
  }
}
