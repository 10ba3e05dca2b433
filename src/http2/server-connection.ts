// The server's end of an HTTP/2 connection (RFC 9113), as far as gRPC on a unix socket needs it.
//
// Why not node:http2: a Stat of the snapshotter takes a few microseconds, and grpc-js on node:http2 some 200 around it, for
// streams, events and objects that one message each way does not need. This takes a tenth of that. docs/benchmarks.md
// (`stat-64`) has the figures.
import type { Duplex } from 'node:stream';
import { content, type Frame, FrameFlag, FrameReader, FrameType, words } from './frame.ts';
import { type Field, FieldDecoder } from './hpack.ts';
import { CONNECTION_WINDOW, ErrorCode, Outgoing, Setting, STREAM_WINDOW } from './outgoing.ts';
import { ServerStream, type StreamHandler } from './server-stream.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const MAX_HEADER_BLOCK = 64 << 10;
/** RFC 7541, 4.2, and what the other end may use before it has read our settings. */
const HEADER_TABLE_SIZE = 4096;
const MAX_STREAM_ID = 0x7fffffff;

/** A mistake of the other end that ends the connection. */
class ConnectionError extends Error {
  readonly code: number;

  constructor(message: string, code: number = ErrorCode.Protocol) {
    super(message);
    this.code = code;
  }
}

/** Called for each request, with its headers; the handler hears of the rest. */
export type Accept = (stream: ServerStream, fields: readonly Field[]) => StreamHandler;

/**
 * INVARIANTS
 * - A stream is in #streams from its headers until both sides have ended it or one has reset it, and then never again; its
 *   handler hears nothing after that.
 * - Once the socket is closed, #streams is empty.
 */
export class ServerConnection {
  readonly #socket: Duplex;
  readonly #accept: Accept;
  readonly #outgoing: Outgoing;
  readonly #reader = new FrameReader();
  readonly #decoder = new FieldDecoder(HEADER_TABLE_SIZE);
  readonly #streams = new Map<number, ServerStream>();
  readonly #closed = Promise.withResolvers<void>();
  #preface: Buffer | undefined = Buffer.alloc(0);
  #lastId = 0;
  #block: { readonly frame: Frame; readonly parts: Buffer[]; length: number } | undefined;
  /** Bytes of bodies that the other end may not send again yet. */
  #unacknowledged = 0;
  #closing = false;

  constructor(socket: Duplex, accept: Accept) {
    this.#socket = socket;
    this.#accept = accept;
    this.#outgoing = new Outgoing(socket);
    socket.on('data', (bytes: Buffer) => this.#receive(bytes));
    socket.on('error', () => socket.destroy());
    socket.on('end', () => socket.destroy());
    socket.on('close', () => this.#ended());
    this.#outgoing.settings([
      [Setting.InitialWindowSize, STREAM_WINDOW],
      [Setting.MaxHeaderListSize, MAX_HEADER_BLOCK],
    ]);
    this.#outgoing.frame(FrameType.WindowUpdate, 0, 0, words(CONNECTION_WINDOW - Outgoing.defaultWindow));
  }

  /** Resolves when the socket is closed. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Takes no more requests, lets those that run finish, and closes the socket. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#outgoing.frame(FrameType.GoAway, 0, 0, words(this.#lastId, ErrorCode.None));
    this.#closeIfIdle();
  }

  /** Breaks off what runs. */
  destroy(): void {
    this.#socket.destroy();
  }

  #ended(): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.broken();
    this.#closed.resolve();
  }

  #closeIfIdle(): void {
    if (this.#closing && this.#streams.size === 0) this.#outgoing.end();
  }

  #receive(bytes: Buffer): void {
    try {
      const frames = this.#greeted(bytes);
      for (const frame of frames) this.#dispatch(frame);
    } catch (error) {
      const code = error instanceof ConnectionError ? error.code : ErrorCode.Protocol;
      this.#outgoing.frame(FrameType.GoAway, 0, 0, words(this.#lastId, code));
      this.#outgoing.end();
      this.#socket.removeAllListeners('data');
      this.#socket.resume();
    }
  }

  /** The frames in what came; before them the other end says that it speaks HTTP/2. */
  #greeted(bytes: Buffer): Frame[] {
    if (this.#preface === undefined) return this.#reader.push(bytes);
    const said = Buffer.concat([this.#preface, bytes]);
    const length = Math.min(said.length, PREFACE.length);
    if (!said.subarray(0, length).equals(PREFACE.subarray(0, length)))
      throw new ConnectionError('the other end does not speak HTTP/2');
    this.#preface = said.length < PREFACE.length ? said : undefined;
    return this.#preface === undefined ? this.#reader.push(said.subarray(PREFACE.length)) : [];
  }

  #dispatch(frame: Frame): void {
    if (this.#block !== undefined && frame.type !== FrameType.Continuation)
      throw new ConnectionError('a header block was interrupted');
    switch (frame.type) {
      case FrameType.Data:
        return this.#data(frame);
      case FrameType.Headers:
        this.#block = { frame, parts: [], length: 0 };
        return this.#headers(frame, content(frame));
      case FrameType.Continuation:
        return this.#headers(frame, frame.payload);
      case FrameType.RstStream:
        this.#known(frame);
        return this.#drop(frame.streamId);
      case FrameType.Settings:
        return this.#settings(frame);
      case FrameType.PushPromise:
        throw new ConnectionError('a client cannot push');
      case FrameType.Ping:
        if (!(frame.flags & FrameFlag.Ack))
          this.#outgoing.frame(FrameType.Ping, FrameFlag.Ack, 0, frame.payload);
        return;
      case FrameType.WindowUpdate:
        return this.#windowUpdate(frame);
      default:
        return; // GOAWAY: it will ask nothing more; PRIORITY and unknown types are to be ignored (RFC 9113, 5.5)
    }
  }

  /** The stream of a frame, unless it is over. */
  #known(frame: Frame): ServerStream | undefined {
    if (frame.streamId === 0 || frame.streamId > this.#lastId)
      throw new ConnectionError(`a frame belongs to stream ${frame.streamId}, which was never opened`);
    return this.#streams.get(frame.streamId);
  }

  #data(frame: Frame): void {
    const stream = this.#known(frame);
    // Windows count padding, too. What arrives for a stream that is over still counts against the connection's.
    this.#unacknowledged += frame.payload.length;
    if (this.#unacknowledged >= CONNECTION_WINDOW / 2) {
      this.#outgoing.frame(FrameType.WindowUpdate, 0, 0, words(this.#unacknowledged));
      this.#unacknowledged = 0;
    }
    stream?.received(content(frame), frame.payload.length, (frame.flags & FrameFlag.EndStream) !== 0);
  }

  #headers(frame: Frame, part: Buffer): void {
    const block = this.#block;
    if (block === undefined || block.frame.streamId !== frame.streamId)
      throw new ConnectionError('a header block has no start');
    block.parts.push(part);
    block.length += part.length;
    if (block.length > MAX_HEADER_BLOCK) throw new ConnectionError('a header block is too long');
    if (!(frame.flags & FrameFlag.EndHeaders)) return;
    this.#block = undefined;
    const fields = this.#decode(block.parts);
    const id = frame.streamId;
    const last = (block.frame.flags & FrameFlag.EndStream) !== 0;
    if (id <= this.#lastId) {
      this.#known(frame)?.received(Buffer.alloc(0), 0, true); // trailers, of which gRPC has none for a server
      return;
    }
    if (id % 2 === 0 || id > MAX_STREAM_ID) throw new ConnectionError(`a client cannot open stream ${id}`);
    this.#lastId = id;
    if (this.#closing) return this.#outgoing.frame(FrameType.RstStream, 0, id, words(ErrorCode.Refused));
    const stream = new ServerStream(id, this.#outgoing, () => this.#drop(id));
    this.#streams.set(id, stream);
    stream.handler = this.#accept(stream, fields);
    if (last) stream.received(Buffer.alloc(0), 0, true);
  }

  #decode(parts: readonly Buffer[]): readonly Field[] {
    try {
      return this.#decoder.decode(
        parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts),
      );
    } catch (error) {
      throw new ConnectionError(String(error), ErrorCode.Compression);
    }
  }

  /** A stream is over; where that was not by both ends' will, its handler is told. */
  #drop(id: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    this.#streams.delete(id);
    stream.broken();
    this.#closeIfIdle();
  }

  #settings(frame: Frame): void {
    if (frame.flags & FrameFlag.Ack) return;
    for (let at = 0; at + 6 <= frame.payload.length; at += 6) {
      if (frame.payload.readUInt16BE(at) !== Setting.InitialWindowSize) continue;
      const window = frame.payload.readUInt32BE(at + 2);
      if (window > MAX_STREAM_ID) throw new ConnectionError('a window is too large', ErrorCode.FlowControl);
      const change = this.#outgoing.changeInitialWindow(window);
      for (const stream of this.#streams.values()) stream.widen(change);
    }
    this.#outgoing.frame(FrameType.Settings, FrameFlag.Ack, 0, Buffer.alloc(0));
  }

  #windowUpdate(frame: Frame): void {
    const increment = frame.payload.readUInt32BE(0) & 0x7fffffff;
    if (increment === 0) throw new ConnectionError('a window is opened by nothing');
    if (frame.streamId !== 0) {
      this.#known(frame)?.widen(increment);
      return;
    }
    this.#outgoing.window += increment;
    if (this.#outgoing.window > MAX_STREAM_ID)
      throw new ConnectionError('a window is too large', ErrorCode.FlowControl);
    for (const stream of this.#streams.values()) stream.flush();
  }
}
