import { access } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { parseOutputAddress, type OutputAddress } from './address.ts';
import { openFifoForReading, type Input } from './fifo.ts';
import { LogProgram } from './log-program.ts';
import { openFile, openPath, passOn } from './output.ts';
import { Held, inputPipe, outputPipe, type Owner } from './pipes.ts';
import type { ChildFds, ProcessIo, StdioAddresses } from './stdio.ts';

/** When a client's input is opened at the latest. Some open their end in between Create and Start, and wait for ours. */
const INPUT_AFTER_MS = 250;

export interface IoContext {
  readonly containerId: string;
  readonly namespace: string;
  readonly owner: Owner;
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
  #input: Input | undefined;
  #inputPath = '';
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

  async open(addresses: StdioAddresses, context: IoContext): Promise<void> {
    const stdin = addresses.stdin === '' ? 'ignore' : await this.#openInput(addresses.stdin, context);
    // As everywhere in containerd, the address of stdout decides the kind for both.
    const out = parseOutputAddress(addresses.stdout);
    if (out.kind === 'program') {
      this.#program = await LogProgram.start({ ...context, ...out }, this.#held);
      this.#childFds = [stdin, this.#program.stdout, this.#program.stderr];
      this.#copies.push(this.#program.exited);
      return;
    }
    const err = out.kind === 'file' ? out : parseOutputAddress(addresses.stderr);
    this.#childFds = [stdin, await this.#openOutput(out, context), await this.#openOutput(err, context)];
  }

  /** Copying starts here, so that what a failing runtime writes to its own streams does not reach the client. */
  async started(): Promise<void> {
    this.#copies.push(...this.#outputs.map(([source, target]) => passOn(source, target)));
    if (this.#stdin !== undefined)
      this.#inputTimer = setTimeout(() => this.takeInput(), INPUT_AFTER_MS).unref();
  }

  takeInput(): void {
    clearTimeout(this.#inputTimer);
    const target = this.#stdin;
    if (this.#input !== undefined || target === undefined || target.destroyed) return;
    let input: Input;
    try {
      input = openFifoForReading(this.#inputPath);
    } catch {
      target.end(); // The client has taken its pipe away: that is an end too.
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
    void this.#program?.stop();
  }

  async #openInput(path: string, { owner }: IoContext): Promise<number> {
    await access(path);
    this.#inputPath = path;
    const { childFd, stream } = await inputPipe(owner);
    this.#open.push(stream);
    this.#held.add(childFd);
    this.#stdin = stream;
    stream.on('error', () => undefined);
    return childFd;
  }

  async #openOutput(address: OutputAddress, { owner }: IoContext): Promise<number | 'ignore'> {
    if (address.kind === 'none' || address.kind === 'program') return 'ignore';
    const target: Writable = await (address.kind === 'file'
      ? openFile(address.path)
      : openPath(address.path));
    this.#open.push(target);
    const { childFd, stream } = await outputPipe(owner);
    this.#open.push(stream);
    this.#held.add(childFd);
    this.#outputs.push([stream, target]);
    return childFd;
  }
}
