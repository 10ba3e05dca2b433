import { openSync } from 'node:fs';
import { hasErrno } from '../../src/errors.ts';
import { closeQuietly, doNotWait, enlargePipe, pipe } from '../../src/sys/descriptor.ts';
import { setWindowSize } from '../../src/sys/terminal.ts';
import { parseOutputAddress, type OutputAddress } from './address.ts';
import { ConsoleSocket } from './console-socket.ts';
import { BOTH_ENDS, openFifoEnds, openForWriting } from './fifo.ts';
import type { Kept } from './keeper.ts';
import { KeptFds, type StreamName } from './kept-fds.ts';
import { LogProgram } from './log-program.ts';
import { Mover } from './mover.ts';
import { isFifo, openFile } from './output.ts';
import type { IoContext } from './pipe-io.ts';
import { Held, inputDescriptors, outputPipe, PIPE_BYTES } from './pipes.ts';
import { untilTaken } from './taken.ts';
import type { ChildFds, ProcessIo, StdioAddresses } from './stdio.ts';

/** See pipe-io.ts. */
const INPUT_AFTER_MS = 250;

/** Connects a process whose streams outlive this process. On failure nothing stays open, here or at the keeper. */
export async function openKeptIo(
  addresses: StdioAddresses,
  context: IoContext,
  kept: Kept,
  socketFolder: string,
): Promise<ProcessIo> {
  const io = new KeptIo(addresses, context, kept);
  try {
    await io.open(socketFolder);
    return io;
  } catch (error) {
    io.handedOver();
    io.close();
    throw error;
  }
}

/**
 * Lets go of the streams of a process that the worker before this one was starting, and that has not come to be. Its client is not
 * told of any end: it may be started again.
 */
export function abandonKeptIo(kept: Kept): void {
  const fds = new KeptFds(kept);
  fds.takeAll();
  fds.closeAllButClient();
}

/** Forgets them, if nobody has started it again. */
export function dropKeptIo(kept: Kept): void {
  const fds = new KeptFds(kept);
  fds.takeAll();
  fds.closeAll();
}

/**
 * Goes on with the streams of a process that the worker before this one had started.
 * @param takesInput whether a client's input is to be opened where it was not yet
 */
export function takeKeptIo(
  addresses: StdioAddresses,
  context: IoContext,
  kept: Kept,
  takesInput: boolean,
): ProcessIo {
  const io = new KeptIo(addresses, context, kept);
  io.takeUp();
  if (takesInput) io.takeInput();
  return io;
}

class KeptIo implements ProcessIo {
  readonly #addresses: StdioAddresses;
  readonly #context: IoContext;
  readonly #kept: Kept;
  readonly #fds: KeptFds;
  readonly #held = new Held();
  readonly #movers: Mover[] = [];
  readonly #outputs: Mover[] = [];
  readonly #copies: Promise<void>[] = [];
  #childFds: ChildFds = ['ignore', 'ignore', 'ignore'];
  #console: ConsoleSocket | undefined;
  #program: LogProgram | undefined;
  #inputClosed = false;
  #opensInput = false;
  #inputTimer: NodeJS.Timeout | undefined;
  #size: readonly [number, number] | undefined;
  #closed = false;

  constructor(addresses: StdioAddresses, context: IoContext, kept: Kept) {
    this.#addresses = addresses;
    this.#context = context;
    this.#kept = kept;
    this.#fds = new KeptFds(kept);
  }

  get childFds(): ChildFds {
    return this.#childFds;
  }

  get consoleSocket(): string | undefined {
    return this.#console?.path;
  }

  get drained(): Promise<void> {
    return Promise.all(this.#copies).then(() => undefined);
  }

  async taken(): Promise<void> {
    const [first] = this.#outputs;
    // What a terminal shows comes out after the process's end, and then its own: only from that on can be known what is there.
    const isTerminal = this.#fds.get('tty') !== undefined;
    const end = { pending: () => (isTerminal && first?.isOver === false ? 1 : 0) };
    await untilTaken([end, ...this.#outputs]);
    for (const mover of this.#outputs) mover.told();
  }

  async open(socketFolder: string): Promise<void> {
    if (this.#addresses.terminal) {
      this.#console = await ConsoleSocket.listen(socketFolder);
      return;
    }
    const { stdin, stdout, stderr } = this.#addresses;
    // As everywhere in containerd, the address of stdout decides the kind for both.
    const out = parseOutputAddress(stdout);
    const err = out.kind === 'file' || out.kind === 'program' ? out : parseOutputAddress(stderr);
    const input = await this.#openInput(stdin);
    if (out.kind === 'program') {
      this.#program = await LogProgram.start({ ...this.#context, ...out }, this.#held);
      this.#copies.push(this.#program.exited);
      this.#childFds = [input, this.#program.stdout, this.#program.stderr];
      return;
    }
    this.#childFds = [input, await this.#openOutput('out', out), await this.#openOutput('err', err)];
  }

  /** Everything that is there already moves on. */
  takeUp(): void {
    this.#fds.takeAll();
    this.#moveOn();
  }

  async started(): Promise<void> {
    if (this.#console !== undefined) await this.#takeTerminal(this.#console);
    this.#moveOn();
    if (this.#fds.get('in-to') !== undefined)
      this.#inputTimer = setTimeout(() => this.takeInput(), INPUT_AFTER_MS).unref();
  }

  takeInput(): void {
    clearTimeout(this.#inputTimer);
    const isTerminal = this.#fds.get('tty') !== undefined;
    const { stdin } = this.#addresses;
    if (this.#closed || stdin === '' || this.#fds.get('in') !== undefined) return;
    if (!isTerminal && this.#fds.get('in-to') === undefined) return;
    if (this.#opensInput) return;
    this.#opensInput = true;
    openFifoEnds(stdin).then(
      (ends) => this.#connectInput(ends),
      () => this.#fds.close('in-to'), // The client has taken its pipe away: that is an end too.
    );
  }

  #connectInput({ fd, end }: { fd: number; end: number }): void {
    if (this.#closed) {
      for (const one of [fd, end]) closeQuietly(one);
      return;
    }
    void this.#fds.add({ in: fd, 'in-end': end }).catch(() => undefined); // the next worker opens it anew
    if (this.#inputClosed) this.closeStdin();
    this.#moveInput();
  }

  handedOver(): void {
    this.#held.release();
  }

  closeStdin(): void {
    this.#inputClosed = true;
    this.#fds.close('in-end');
  }

  resize(columns: number, rows: number): void {
    this.#size = [columns, rows];
    const tty = this.#fds.get('tty');
    if (tty !== undefined) setWindowSize(tty, columns, rows);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#inputTimer);
    this.#held.release();
    this.#console?.close();
    for (const mover of this.#movers) mover.stop();
    this.#fds.closeAll();
    void this.#program?.stop();
  }

  async #openInput(path: string): Promise<number | 'ignore'> {
    const { owner, piped } = this.#context;
    if (path === '' && piped !== true) return 'ignore';
    const hasInput = path !== '' && (await isThere(path, piped === true));
    const { childFd, ours } = await inputDescriptors(owner);
    this.#held.add(childFd);
    if (hasInput) await this.#fds.add({ 'in-to': ours });
    else closeQuietly(ours); // at its end, as that of /dev/null is
    return childFd;
  }

  async #openOutput(name: 'out' | 'err', address: OutputAddress): Promise<number | 'ignore'> {
    const piped = this.#context.piped === true;
    if (address.kind === 'program' || (address.kind === 'none' && !piped)) return 'ignore';
    await this.#openTarget(`${name}-to`, address, piped);
    const ours = await outputPipe(this.#context.owner);
    this.#held.add(ours.childFd);
    await this.#fds.add({ [name]: ours.readFd });
    return ours.childFd;
  }

  /** @param mayBeGone see isThere */
  async #openTarget(
    name: 'out-to' | 'err-to',
    address: Exclude<OutputAddress, { kind: 'program' }>,
    mayBeGone: boolean,
  ): Promise<void> {
    const isClients = address.kind === 'path' && (await isFifoThere(address.path, mayBeGone));
    if (!isClients) await this.#fds.add({ [name]: await openTarget(address, mayBeGone) });
    // Both of its ends: fifo.ts.
    else enlargePipe(await this.#fds.open(name, address.path, BOTH_ENDS), PIPE_BYTES);
  }

  async #takeTerminal(socket: ConsoleSocket): Promise<void> {
    const tty = await socket.receive();
    socket.close();
    doNotWait(tty);
    await this.#fds.add({ tty });
    if (this.#size !== undefined) setWindowSize(tty, ...this.#size);
    const address = parseOutputAddress(this.#addresses.stdout);
    if (address.kind === 'program') {
      const held = new Held();
      this.#program = await LogProgram.start({ ...this.#context, ...address }, held);
      held.forget(this.#program.stdout);
      held.release();
      this.#copies.push(this.#program.exited);
      doNotWait(this.#program.stdout);
      await this.#fds.add({ 'out-to': this.#program.stdout });
    } else {
      await this.#openTarget('out-to', address, this.#context.piped === true);
      // Of two that the kernel moves bytes between one has to be a pipe.
      const mid = pipe();
      await this.#fds.add({ mid: mid.read, 'mid-to': mid.write });
    }
    this.takeInput();
  }

  #moveOn(): void {
    if (this.#fds.get('mid') !== undefined) {
      this.#moveOutput('tty', 'mid-to'); // which is over first: the rest of it is in between
      this.#moveOutput('mid', 'out-to');
    } else if (this.#fds.get('tty') !== undefined) {
      this.#moveOutput('tty', 'out-to');
    } else {
      this.#moveOutput('out', 'out-to');
      this.#moveOutput('err', 'err-to');
    }
    this.#moveInput();
  }

  #moveOutput(source: StreamName, target: StreamName): void {
    const [from, to] = [this.#fds.get(source), this.#fds.get(target)];
    if (from === undefined || to === undefined) {
      this.#fds.close(source, target); // the worker before this one was closing them
      return;
    }
    const mover = this.#mover(from, to, 'lose');
    this.#outputs.push(mover);
    // Kept until then: a worker that follows this one sees by it what the client has not read, and waits as this one does.
    const taken = mover.done.then(() => untilTaken([mover]));
    this.#copies.push(taken.then(() => this.#fds.close(source, target)));
    mover.start();
  }

  #moveInput(): void {
    const from = this.#fds.get('in');
    const isTerminal = this.#fds.get('tty') !== undefined;
    const to = this.#fds.get(isTerminal ? 'tty' : 'in-to');
    if (from === undefined || to === undefined) {
      this.#fds.close('in', 'in-end');
      return;
    }
    const mover = this.#mover(from, to, 'leave');
    // A process that closes its input takes the client's end with it.
    void mover.done.then(() => this.#fds.close('in', 'in-end', 'in-to'));
    mover.start();
  }

  #mover(from: number, to: number, rest: 'lose' | 'leave'): Mover {
    const mover = new Mover({ readiness: this.#kept.readiness, from, to, rest });
    this.#movers.push(mover);
    return mover;
  }
}

/** @throws ENOENT, unless a client may have left: see IoContext.piped */
async function isThere(path: string, mayBeGone: boolean): Promise<boolean> {
  try {
    await isFifo(path);
    return true;
  } catch (error) {
    if (mayBeGone && hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** Whether it is a FIFO. @throws ENOENT, as isThere */
async function isFifoThere(path: string, mayBeGone: boolean): Promise<boolean> {
  try {
    return await isFifo(path);
  } catch (error) {
    if (mayBeGone && hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** Where a process's output goes that is no FIFO: a file at its end, or nowhere. */
async function openTarget(
  address: Exclude<OutputAddress, { kind: 'program' }>,
  mayBeGone: boolean,
): Promise<number> {
  if (address.kind === 'none') return openSync('/dev/null', 'w');
  if (mayBeGone && address.kind === 'path' && !(await isThere(address.path, true)))
    return openSync('/dev/null', 'w');
  // Made with its folders; then opened as one that is not appended to, as splice(2) refuses those.
  const made = await openFile(address.path);
  made.destroy();
  return openForWriting(address.path);
}
