import { ReadStream } from 'node:tty';
import { Writable } from 'node:stream';
import { Socket } from 'node:net';
import { hasErrno } from '../../src/errors.ts';
import { doNotWait } from '../../src/sys/descriptor.ts';
import { setWindowSize } from '../../src/sys/terminal.ts';
import { parseOutputAddress } from './address.ts';
import { ConsoleSocket } from './console-socket.ts';
import { openFifoForReading, type Input } from './fifo.ts';
import { LogProgram } from './log-program.ts';
import { openFile, openPath, passOn } from './output.ts';
import type { IoContext } from './pipe-io.ts';
import { Held } from './pipes.ts';
import type { ProcessIo, StdioAddresses } from './stdio.ts';
import { TerminalInput } from './terminal-input.ts';

/** Connects a process with a terminal of its own; both outputs are one. On failure nothing stays open. */
export async function openConsoleIo(
  addresses: StdioAddresses,
  context: IoContext,
  socketFolder: string,
): Promise<ProcessIo> {
  return new ConsoleIo(addresses, context, await ConsoleSocket.listen(socketFolder));
}

class ConsoleIo implements ProcessIo {
  readonly childFds = ['ignore', 'ignore', 'ignore'] as const;
  readonly #addresses: StdioAddresses;
  readonly #context: IoContext;
  readonly #socket: ConsoleSocket;
  #drained: Promise<void> = Promise.resolve();
  #master: ReadStream | undefined;
  #fd = -1;
  #input: Input | undefined;
  #output: Writable | undefined;
  #program: LogProgram | undefined;
  /** A size that came before the terminal. */
  #size: [number, number] | undefined;

  constructor(addresses: StdioAddresses, context: IoContext, socket: ConsoleSocket) {
    this.#addresses = addresses;
    this.#context = context;
    this.#socket = socket;
  }

  get consoleSocket(): string {
    return this.#socket.path;
  }

  get drained(): Promise<void> {
    return this.#drained;
  }

  async taken(): Promise<void> {
    // What a terminal shows when its process ends is on its way through this process, in no order with the end.
  }

  handedOver(): void {
    // The terminal comes later, through the socket.
  }

  async started(): Promise<void> {
    const fd = await this.#socket.receive();
    this.#socket.close();
    doNotWait(fd);
    const master = new ReadStream(fd);
    this.#fd = fd;
    this.#master = master;
    master.on('error', () => undefined);
    master.once('close', () => (this.#fd = -1));
    if (this.#size !== undefined) this.resize(...this.#size);
    this.#output = await this.#openOutput();
    this.#drained = passOn(master, this.#output).then(() => this.#program?.exited);
    const input = await this.#openInput();
    if (input === undefined) return;
    if (master.destroyed) {
      input.stream.destroy(); // closed meanwhile
      return;
    }
    this.#input = input;
    input.stream.on('error', () => undefined);
    const terminal = new TerminalInput(() => this.#fd);
    master.once('close', () => {
      input.stream.destroy();
      terminal.destroy();
    });
    input.stream.pipe(terminal, { end: false });
  }

  takeInput(): void {
    // A terminal's input has no end that could be met too early.
  }

  closeStdin(): void {
    this.#input?.release();
  }

  resize(columns: number, rows: number): void {
    this.#size = [columns, rows];
    if (this.#fd >= 0) setWindowSize(this.#fd, columns, rows);
  }

  close(): void {
    this.#socket.close();
    this.#input?.stream.destroy();
    this.#master?.destroy();
    this.#output?.destroy();
    void this.#program?.stop();
  }

  async #openInput(): Promise<Input | undefined> {
    const { stdin } = this.#addresses;
    if (stdin === '') return undefined;
    try {
      return await openFifoForReading(stdin);
    } catch (error) {
      if (this.#isGone(error)) return undefined;
      throw error;
    }
  }

  /** Whether a client has taken its FIFO away: see IoContext.piped. */
  #isGone(error: unknown): boolean {
    return this.#context.piped === true && hasErrno(error, 'ENOENT');
  }

  async #openOutput(): Promise<Writable> {
    const address = parseOutputAddress(this.#addresses.stdout);
    switch (address.kind) {
      case 'none':
        return nowhere();
      case 'path':
        return openPath(address.path).catch((error: unknown) => {
          if (this.#isGone(error)) return nowhere();
          throw error;
        });
      case 'file':
        return openFile(address.path);
      case 'program': {
        const held = new Held();
        this.#program = await LogProgram.start({ ...this.#context, ...address }, held);
        const target = new Socket({ fd: this.#program.stdout, readable: false, writable: true });
        held.forget(this.#program.stdout);
        held.release();
        return target;
      }
    }
  }
}

function nowhere(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() });
}
