// The server's side of one connection: which calls are in flight, and what each frame means to them.
import type { Duplex } from 'node:stream';
import { Channel } from './channel.ts';
import { CallContext } from './context.ts';
import type { Connection } from './context.ts';
import type { Extension } from './extension.ts';
import type { Frame, MessageFrame } from './frame.ts';
import { FREE_FLAGS, FrameFlag, FrameType } from './frame.ts';
import { Inbox, decodeError } from './inbox.ts';
import type { Limits } from './limits.ts';
import type { Logger } from './logger.ts';
import {
  decodeRequest,
  encodeData,
  encodeEnd,
  encodeResponse,
  encodeStatus,
  oversizeError,
} from './message.ts';
import type { RequestMessage } from './message.ts';
import type { Registry, Route } from './registry.ts';
import { Code, StatusError, closedError, toStatusError } from './status.ts';

interface Call {
  readonly streamId: number;
  readonly route: Route;
  readonly context: CallContext;
  /** What the request weighs against Limits.requestBytes. */
  readonly size: number;
  /** Whether its answer is the extension's first. */
  readonly extended: boolean;
  /** The requests of a call that streams them. */
  readonly inbox: Inbox<unknown> | undefined;
}

let lastConnectionId = 0;

/**
 * INVARIANTS
 * - Each request is answered exactly once: its call is in `#calls` until then, and only `#finish` takes it out.
 * - Nothing that a peer sends and nothing that a handler throws leaves this class as an exception.
 * - Handlers start in the order of their requests, and no handler waits for another.
 */
export class ServerConnection implements Connection {
  readonly id = ++lastConnectionId;
  readonly #channel: Channel;
  readonly #registry: Registry;
  readonly #limits: Limits;
  readonly #logger: Logger;
  readonly #extension: Extension | undefined;
  readonly #calls = new Map<number, Call>();
  readonly #closeListeners: (() => void)[] = [];
  #requestBytes = 0;
  #lastStreamId = 0;
  #draining = false;

  constructor(stream: Duplex, registry: Registry, limits: Limits, logger: Logger, extension?: Extension) {
    this.#extension = extension;
    this.#registry = registry;
    this.#limits = limits;
    this.#logger = logger;
    this.#channel = new Channel(
      stream,
      { onFrame: (frame) => this.#receive(frame), onClose: (error) => this.#closed(error) },
      { readOnlyWhileWritable: true },
    );
  }

  get stream(): Duplex {
    return this.#channel.stream;
  }

  get closed(): boolean {
    return this.#channel.closed;
  }

  get calls(): number {
    return this.#calls.size;
  }

  onClose(listener: () => void): void {
    if (this.closed) listener();
    else this.#closeListeners.push(listener);
  }

  close(): void {
    this.#channel.destroy();
  }

  /** Takes no new call, and closes when those in flight are answered. */
  drain(): void {
    this.#draining = true;
    if (this.#calls.size === 0) this.#channel.end();
  }

  #receive(frame: Frame): void {
    const { streamId, type } = frame;
    // Types that we do not know are ignored, so that the protocol can grow.
    if (type !== FrameType.Request && type !== FrameType.Data && type !== FrameType.Cancel) {
      this.#extension?.receive(this, frame);
      return;
    }
    if (streamId % 2 !== 1) {
      this.#reject(streamId, Code.InvalidArgument, 'StreamID must be odd for client initiated streams');
    } else if (type === FrameType.Request) this.#request(frame);
    else if (type === FrameType.Data) this.#data(frame);
    else this.#calls.get(streamId)?.context.abort(new StatusError(Code.Canceled, 'context canceled'));
  }

  #request(frame: Frame): void {
    const { streamId } = frame;
    const isKnown =
      this.#extension?.anyOrder === true ? this.#calls.has(streamId) : streamId <= this.#lastStreamId;
    if (isKnown) {
      this.#reject(streamId, Code.InvalidArgument, 'StreamID cannot be re-used and must increment');
      return;
    }
    this.#lastStreamId = streamId;
    try {
      if (frame.kind === 'oversize') throw oversizeError(frame.length);
      this.#admit(frame.body.length);
      const request = parse(frame.body);
      this.#start(frame, request, this.#registry.find(request.service, request.method));
    } catch (error) {
      this.#channel.send(encodeStatus(streamId, toStatusError(error)));
    }
  }

  #admit(size: number): void {
    if (this.#draining) throw new StatusError(Code.Unavailable, 'ttrpc: server closed');
    if (this.#calls.size >= this.#limits.calls) {
      throw new StatusError(
        Code.ResourceExhausted,
        `${String(this.#limits.calls)} calls are in flight already`,
      );
    }
    if (this.#requestBytes > 0 && this.#requestBytes + size > this.#limits.requestBytes) {
      throw new StatusError(Code.ResourceExhausted, 'the requests in flight are too large together');
    }
  }

  #start(frame: MessageFrame, request: RequestMessage, route: Route): void {
    const { streamId } = frame;
    const first = route.requestStream ? undefined : decodeMessage(route, request.payload);
    const context = new CallContext(this, request);
    const size = frame.body.length;
    const inbox = route.requestStream
      ? new Inbox(route.requestType, this.#channel, (error) => {
          if (error !== undefined) this.#fail(call, error);
        })
      : undefined;
    const extended = (frame.flags & FREE_FLAGS) !== 0;
    const call: Call = { streamId, route, context, size, extended, inbox };
    this.#calls.set(streamId, call);
    this.#requestBytes += size;
    if (inbox !== undefined) {
      // A handler that waits for its next request must learn that none will come.
      const { signal } = context;
      signal.addEventListener('abort', () => inbox.abort(toStatusError(signal.reason)));
      if (signal.aborted) inbox.abort(toStatusError(signal.reason));
      // The Go library puts a stream's first message into the request when it has one.
      if (request.payload.length > 0) inbox.push(request.payload);
      if ((frame.flags & FrameFlag.RemoteOpen) === 0) inbox.end();
    }
    let result: unknown;
    try {
      result = route.handler(inbox ?? first, context);
    } catch (error) {
      this.#fail(call, error);
      return;
    }
    if (route.responseStream) void this.#stream(call, result as AsyncIterable<unknown>);
    else {
      Promise.resolve(result).then(
        (message) => this.#respond(call, message),
        (error: unknown) => this.#fail(call, error),
      );
    }
  }

  #data(frame: Frame): void {
    const call = this.#calls.get(frame.streamId);
    if (call === undefined) {
      this.#reject(frame.streamId, Code.InvalidArgument, 'StreamID is no longer active');
    } else if (call.inbox === undefined) {
      this.#fail(call, new StatusError(Code.InvalidArgument, 'data is not allowed on a unary stream'));
    } else if (frame.kind === 'oversize') {
      this.#fail(call, oversizeError(frame.length));
    } else {
      if ((frame.flags & FrameFlag.NoData) === 0) call.inbox.push(frame.body);
      if ((frame.flags & FrameFlag.RemoteClosed) !== 0) call.inbox.end();
    }
  }

  #respond(call: Call, message: unknown): void {
    this.#finish(call, () => {
      const bytes = encodeResponse(call.streamId, call.route.responseType, message);
      if (this.#channel.queued + bytes.length <= this.#limits.queuedBytes) return bytes;
      throw new StatusError(Code.ResourceExhausted, 'the client does not read its answers');
    });
  }

  async #stream(call: Call, messages: AsyncIterable<unknown>): Promise<void> {
    const { streamId, route, context } = call;
    try {
      for await (const message of messages) {
        if (context.abortReason !== undefined) throw context.abortReason;
        if (this.#calls.get(streamId) !== call) return;
        const pause = this.#channel.sendPaced(encodeData(streamId, route.responseType, message));
        if (pause !== undefined) await pause;
      }
      this.#finish(call, () => encodeEnd(streamId));
    } catch (error) {
      this.#fail(call, error);
    }
  }

  /** Answers with the error. Where the call was given up, the reason is told apart from what that led to. */
  #fail(call: Call, error: unknown): void {
    const reason = call.context.abortReason;
    const status = reason !== undefined && isAbort(error) ? reason : toStatusError(error);
    this.#finish(call, () => encodeStatus(call.streamId, status));
  }

  #finish(call: Call, encode: () => Uint8Array): void {
    if (this.#calls.get(call.streamId) !== call) return;
    this.#calls.delete(call.streamId);
    this.#requestBytes -= call.size;
    call.inbox?.end();
    let bytes: Uint8Array;
    try {
      bytes = encode();
    } catch (error) {
      const status =
        error instanceof StatusError
          ? error
          : new StatusError(Code.Internal, `ttrpc: error marshaling payload: ${String(error)}`);
      bytes = encodeStatus(call.streamId, status);
    }
    const extension = call.extended ? this.#extension : undefined;
    const sent = extension === undefined ? bytes : extension.answer(this, bytes);
    if (sent !== undefined) this.#channel.send(sent);
    call.context.end();
    if (this.#draining && this.#calls.size === 0) this.#channel.end();
  }

  #reject(streamId: number, code: number, message: string): void {
    this.#channel.send(encodeStatus(streamId, new StatusError(code, message)));
  }

  #closed(error: Error | undefined): void {
    if (error !== undefined) this.#logger.debug('ttrpc: connection lost', { connection: this.id, error });
    const reason = closedError(error);
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    this.#requestBytes = 0;
    for (const call of calls) {
      call.context.abort(reason);
      call.context.end();
    }
    for (const listener of this.#closeListeners.splice(0)) {
      try {
        listener();
      } catch (thrown) {
        this.#logger.warn('ttrpc: a close listener threw', { connection: this.id, error: thrown });
      }
    }
  }
}

function parse(body: Uint8Array): RequestMessage {
  try {
    return decodeRequest(body);
  } catch (cause) {
    throw new StatusError(Code.InvalidArgument, `unmarshal request error: ${String(cause)}`, { cause });
  }
}

function decodeMessage(route: Route, payload: Uint8Array): unknown {
  try {
    return route.requestType.decode(payload);
  } catch (cause) {
    throw decodeError(cause);
  }
}

// Node's own AbortError, and a DOMException of that name, say that a signal aborted but not why.
function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
