// The client's end of an HTTP/2 connection (RFC 9113), as far as gRPC calls on a unix socket need it.
//
// Why not node:http2: it cannot be had without node:tls. Beside the 43 ms of CPU that Node takes with an empty file,
// loading it takes 44 ms and grpc-js, which builds on it, 68; this connection with its gRPC client and the wire types
// takes 3 (medians of 31 starts on one busy machine). A `stasis clone` as a whole should take little more than 100.
import type { Duplex } from 'node:stream';
import { decodeFields, encodeFields, type Field } from './hpack.ts';
import {
  content,
  encodeFrame,
  type Frame,
  FrameFlag,
  FrameReader,
  FrameType,
  MAX_PAYLOAD,
  words,
} from './frame.ts';

/** What happens on a stream, in this order; `failed` may come at any time and is then the last. */
export interface StreamHandler {
  /** Headers, or trailers when `last`. */
  fields(fields: readonly Field[], last: boolean): void;
  /** A piece of the body. */
  data(bytes: Buffer): void;
  /** The server ended its side without trailers. */
  end(): void;
  failed(error: StreamError): void;
}

/** Why a stream or the whole connection broke. */
export class StreamError extends Error {
  /** HTTP/2 error code of the server's RST_STREAM (RFC 9113, 7); undefined when the connection is gone. */
  readonly resetCode: number | undefined;

  constructor(message: string, details: { resetCode?: number; cause?: unknown } = {}) {
    super(message, { cause: details.cause });
    this.name = 'StreamError';
    this.resetCode = details.resetCode;
  }
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const Setting = { HeaderTableSize: 1, EnablePush: 2, InitialWindowSize: 4, MaxHeaderListSize: 6 } as const;
/** RFC 9113, 6.9.2: both windows before anybody says otherwise. */
const DEFAULT_WINDOW = 65_535;
/** What we let the server send ahead, for each stream and in all. */
const RECEIVE_WINDOW = 4 << 20;
const MAX_HEADER_BLOCK = 64 << 10;
/** Milliseconds for the last bytes to go out to a server that does not read. */
const LINGER = 500;
const CANCEL = 8;
const PROTOCOL_ERROR = 1;

interface Stream {
  readonly handler: StreamHandler;
  sendWindow: number;
  /** The part of the request that no window had room for yet. */
  unsent: Buffer;
  /** Whether the last part of the request, with END_STREAM, was sent. */
  sent: boolean;
}

interface HeaderBlock {
  readonly streamId: number;
  readonly last: boolean;
  readonly parts: Buffer[];
  length: number;
}

/**
 * INVARIANTS
 * - A stream is in #streams from its request until it ends, fails or is cancelled, and then never again; its
 *   handler hears nothing after that.
 * - After #fail, #failure is set, #streams is empty and the socket is destroyed.
 */
export class Http2Connection {
  readonly #socket: Duplex;
  readonly #reader = new FrameReader();
  readonly #streams = new Map<number, Stream>();
  #nextId = 1;
  #sendWindow = DEFAULT_WINDOW;
  #initialWindow = DEFAULT_WINDOW;
  #block: HeaderBlock | undefined;
  #greeted = false;
  #failure: StreamError | undefined;
  #unacknowledged = 0;

  /** Speaks at once over `socket`, connected or still connecting. */
  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on('data', (bytes: Buffer) => this.#receive(bytes));
    socket.on('error', (error: Error) => this.#fail(new StreamError(error.message, { cause: error })));
    socket.on('close', () => this.#fail(new StreamError('the connection was closed')));
    // One write for all that waits, so that the whole request reaches the server in one piece.
    socket.cork();
    socket.write(PREFACE);
    const settings = [
      [Setting.HeaderTableSize, 0],
      [Setting.EnablePush, 0],
      [Setting.InitialWindowSize, RECEIVE_WINDOW],
      [Setting.MaxHeaderListSize, MAX_HEADER_BLOCK],
    ] as const;
    const payload = Buffer.alloc(6 * settings.length);
    settings.forEach(([id, value], index) => {
      payload.writeUInt16BE(id, 6 * index);
      payload.writeUInt32BE(value, 6 * index + 2);
    });
    this.#send(FrameType.Settings, 0, 0, payload);
    this.#send(FrameType.WindowUpdate, 0, 0, words(RECEIVE_WINDOW - DEFAULT_WINDOW));
    process.nextTick(() => socket.uncork());
  }

  /** Whether the server has said anything in HTTP/2 yet. */
  get greeted(): boolean {
    return this.#greeted;
  }

  /** Sends a whole request. The function that comes back cancels it: the handler hears nothing more. */
  request(fields: readonly Field[], body: Buffer, handler: StreamHandler): () => void {
    const failure = this.#failure;
    if (failure !== undefined) {
      process.nextTick(() => handler.failed(failure));
      return () => undefined;
    }
    const id = this.#nextId;
    this.#nextId += 2;
    const stream: Stream = { handler, sendWindow: this.#initialWindow, unsent: body, sent: false };
    this.#streams.set(id, stream);
    this.#send(FrameType.Headers, FrameFlag.EndHeaders, id, encodeFields(fields));
    this.#flush(id, stream);
    return () => {
      if (this.#streams.delete(id)) this.#send(FrameType.RstStream, 0, id, words(CANCEL));
    };
  }

  /** Breaks what still runs and closes the socket, after what was written is out. */
  close(): void {
    this.#fail(new StreamError('the connection was closed'));
  }

  #send(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    if (this.#failure === undefined) this.#socket.write(encodeFrame(type, flags, streamId, payload));
  }

  /** Sends as much of a request as both windows and the frame size allow. */
  #flush(id: number, stream: Stream): void {
    while (!stream.sent) {
      const size = Math.min(stream.unsent.length, stream.sendWindow, this.#sendWindow, MAX_PAYLOAD);
      if (size <= 0 && stream.unsent.length > 0) return;
      const part = stream.unsent.subarray(0, size);
      stream.unsent = stream.unsent.subarray(size);
      stream.sendWindow -= size;
      this.#sendWindow -= size;
      stream.sent = stream.unsent.length === 0;
      this.#send(FrameType.Data, stream.sent ? FrameFlag.EndStream : 0, id, part);
    }
  }

  #receive(bytes: Buffer): void {
    if (this.#failure !== undefined) return;
    try {
      for (const frame of this.#reader.push(bytes)) this.#dispatch(frame);
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      this.#send(FrameType.GoAway, 0, 0, words(0, PROTOCOL_ERROR));
      this.#fail(new StreamError(`the other end does not speak gRPC: ${cause}`, { cause: error }));
    }
  }

  #dispatch(frame: Frame): void {
    if (this.#failure !== undefined) return;
    if (!this.#greeted) {
      if (frame.type !== FrameType.Settings) throw new Error('its first frame is not SETTINGS');
      this.#greeted = true;
    }
    if (this.#block !== undefined && frame.type !== FrameType.Continuation) {
      throw new Error('a header block was interrupted');
    }
    switch (frame.type) {
      case FrameType.Data:
        return this.#data(frame);
      case FrameType.Headers:
        this.#block = {
          streamId: frame.streamId,
          last: (frame.flags & FrameFlag.EndStream) !== 0,
          parts: [],
          length: 0,
        };
        return this.#headers(frame);
      case FrameType.Continuation:
        return this.#headers(frame);
      case FrameType.RstStream:
        return this.#reset(frame);
      case FrameType.Settings:
        return this.#settings(frame);
      case FrameType.PushPromise:
        throw new Error('it pushes although that was refused');
      case FrameType.Ping:
        if (!(frame.flags & FrameFlag.Ack)) this.#send(FrameType.Ping, FrameFlag.Ack, 0, frame.payload);
        return;
      case FrameType.GoAway:
        return this.#goAway(frame);
      case FrameType.WindowUpdate:
        return this.#windowUpdate(frame);
      default:
        // PRIORITY and unknown types are to be ignored (RFC 9113, 5.5).
        return;
    }
  }

  #data(frame: Frame): void {
    const bytes = content(frame);
    const stream = this.#streams.get(frame.streamId);
    const last = (frame.flags & FrameFlag.EndStream) !== 0;
    // Windows count padding, too. What arrives for a cancelled stream still counts against the connection's.
    this.#unacknowledged += frame.payload.length;
    if (this.#unacknowledged >= RECEIVE_WINDOW / 2) {
      this.#send(FrameType.WindowUpdate, 0, 0, words(this.#unacknowledged));
      this.#unacknowledged = 0;
    }
    if (stream === undefined) return;
    if (!last && frame.payload.length > 0) {
      this.#send(FrameType.WindowUpdate, 0, frame.streamId, words(frame.payload.length));
    }
    stream.handler.data(bytes);
    if (last && this.#streams.delete(frame.streamId)) stream.handler.end();
  }

  #headers(frame: Frame): void {
    const block = this.#block;
    if (block === undefined || block.streamId !== frame.streamId)
      throw new Error('a header block has no start');
    const part = frame.type === FrameType.Headers ? content(frame) : frame.payload;
    block.parts.push(part);
    block.length += part.length;
    if (block.length > MAX_HEADER_BLOCK) throw new Error('a header block is too long');
    if (!(frame.flags & FrameFlag.EndHeaders)) return;
    this.#block = undefined;
    const fields = decodeFields(Buffer.concat(block.parts));
    const stream = this.#streams.get(block.streamId);
    if (stream === undefined) return;
    if (block.last) this.#streams.delete(block.streamId);
    stream.handler.fields(fields, block.last);
  }

  #reset(frame: Frame): void {
    const code = frame.payload.readUInt32BE(0);
    const stream = this.#streams.get(frame.streamId);
    if (this.#streams.delete(frame.streamId)) {
      stream?.handler.failed(
        new StreamError(`the server broke the call off (HTTP/2 error ${code})`, { resetCode: code }),
      );
    }
  }

  #settings(frame: Frame): void {
    if (frame.flags & FrameFlag.Ack) return;
    for (let at = 0; at + 6 <= frame.payload.length; at += 6) {
      if (frame.payload.readUInt16BE(at) !== Setting.InitialWindowSize) continue;
      const window = frame.payload.readUInt32BE(at + 2);
      const change = window - this.#initialWindow;
      this.#initialWindow = window;
      for (const stream of this.#streams.values()) stream.sendWindow += change;
    }
    this.#send(FrameType.Settings, FrameFlag.Ack, 0, Buffer.alloc(0));
    this.#flushAll();
  }

  #windowUpdate(frame: Frame): void {
    const increment = frame.payload.readUInt32BE(0) & 0x7fffffff;
    if (frame.streamId === 0) this.#sendWindow += increment;
    const stream = this.#streams.get(frame.streamId);
    if (stream !== undefined) stream.sendWindow += increment;
    this.#flushAll();
  }

  #flushAll(): void {
    for (const [id, stream] of this.#streams) this.#flush(id, stream);
  }

  /** The server goes away: what it will not answer has failed, the rest may end. */
  #goAway(frame: Frame): void {
    const lastId = frame.payload.readUInt32BE(0) & 0x7fffffff;
    for (const [id, stream] of this.#streams) {
      if (id <= lastId || !this.#streams.delete(id)) continue;
      stream.handler.failed(new StreamError('the server is going away'));
    }
  }

  #fail(error: StreamError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    // What was written last, such as a cancellation, must still reach the server.
    this.#socket.end(() => this.#socket.destroy());
    setTimeout(() => this.#socket.destroy(), LINGER).unref();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.handler.failed(error);
  }
}
