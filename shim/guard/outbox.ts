import { connect, Socket } from 'node:net';
import { FrameDecoder, FrameType, type Frame } from '../../ttrpc/frame.ts';
import { bytesOf } from './frames.ts';
import type { ToGuard, ToWorker } from './messages.ts';
import { descriptorOf } from './successor.ts';

export type Call = Extract<ToGuard, { kind: 'call' }>;
export type Answered = Extract<ToWorker, { kind: 'answered' }>;

/** All of it, as a program that takes the guard's place has it. */
export interface OutboxState {
  readonly path: string;
  /** Of the connection; undefined where there is none. */
  readonly fd?: number;
  readonly nextStreamId: number;
  readonly open?: Open;
  readonly kept?: Answered;
}

/** A call that is not answered. */
interface Open {
  readonly key: string;
  readonly streamId: number;
}

const NOTHING: OutboxState = { path: '', nextStreamId: 1 };

/**
 * Calls containerd for the worker, one call at a time, so that what has been sent and how it was answered outlives the worker.
 *
 * INVARIANTS
 * - A call whose key is the last one's is not sent again, but answered as that was or will be; `afresh` alone sends it again.
 * - It fails only with its connection: whether it had arrived is not known then.
 */
export class Outbox {
  readonly #tell: (answered: Answered) => void;
  #socket: Socket | undefined;
  #decoder = new FrameDecoder();
  #path: string;
  #nextStreamId: number;
  #open: Open | undefined;
  #kept: Answered | undefined;

  /** @param left what the program before this one has left */
  constructor(tell: (answered: Answered) => void, left: OutboxState = NOTHING) {
    this.#tell = tell;
    this.#path = left.path;
    this.#nextStreamId = left.nextStreamId;
    this.#open = left.open;
    this.#kept = left.kept;
    if (left.fd !== undefined) this.#use(new Socket({ fd: left.fd }));
  }

  call({ key, path, body, afresh }: Call): void {
    if (!afresh && this.#open?.key === key) return; // told when it is answered
    if (!afresh && this.#kept?.key === key) {
      this.#tell(this.#kept);
      return;
    }
    this.#kept = undefined;
    if (this.#open !== undefined || path !== this.#path) this.#disconnect();
    if (this.#socket === undefined) {
      this.#path = path;
      this.#nextStreamId = 1;
      this.#use(connect(path));
    }
    const streamId = this.#nextStreamId;
    this.#nextStreamId += 2;
    this.#open = { key, streamId };
    const bytes = Buffer.from(body, 'base64');
    this.#socket?.write(
      bytesOf({ kind: 'message', streamId, type: FrameType.Request, flags: 0, body: bytes }),
    );
  }

  /** Whether nothing is here alone, but for what `state` has. */
  get isStill(): boolean {
    if (this.#socket === undefined) return true;
    const { connecting, readableLength, writableLength } = this.#socket;
    return !connecting && readableLength === 0 && writableLength === 0 && !this.#decoder.midFrame;
  }

  get state(): OutboxState {
    return {
      path: this.#path,
      ...(this.#socket === undefined ? {} : { fd: descriptorOf(this.#socket) }),
      nextStreamId: this.#nextStreamId,
      ...(this.#open === undefined ? {} : { open: this.#open }),
      ...(this.#kept === undefined ? {} : { kept: this.#kept }),
    };
  }

  #use(socket: Socket): void {
    const decoder = new FrameDecoder();
    let why = 'the connection was closed';
    this.#socket = socket;
    this.#decoder = decoder;
    socket.on('data', (chunk) => {
      for (const frame of decoder.push(chunk)) if (this.#socket === socket) this.#answer(frame);
    });
    socket.on('error', (error) => (why = error.message));
    socket.once('close', () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      const open = this.#open;
      this.#open = undefined;
      if (open !== undefined) this.#tell({ kind: 'answered', key: open.key, error: why });
    });
  }

  #answer(frame: Frame): void {
    const open = this.#open;
    if (frame.streamId !== open?.streamId || frame.kind === 'oversize') return;
    this.#open = undefined;
    const body = Buffer.from(frame.body).toString('base64');
    this.#kept = { kind: 'answered', key: open.key, body };
    this.#tell(this.#kept);
  }

  #disconnect(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#open = undefined;
  }
}
