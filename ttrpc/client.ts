// A ttrpc client: one connection, any number of calls on it at once.
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { Duplex } from 'node:stream';
import { Channel } from './channel.ts';
import { FrameType } from './frame.ts';
import type { Frame } from './frame.ts';
import { Metadata } from './metadata.ts';
import type { CallOptions, MethodDefinition, ServiceClient, ServiceDefinition } from './service.ts';
import { Code, StatusError, closedError, toStatusError } from './status.ts';
import { StreamCall } from './stream-call.ts';
import { UnaryCall, canceledError } from './unary-call.ts';
import type { CallHost, ClientCall, Head } from './unary-call.ts';

export interface ConnectOptions {
  /** Gives up connecting. */
  signal?: AbortSignal;
}

const HIGHEST_STREAM_ID = 0xffffffff;

/**
 * INVARIANTS
 * - Stream ids are odd, and leave in increasing order: an id is taken and its request sent in one step.
 * - A call is in `#calls` from its request until its last answer; when the connection closes, each one that is
 *   still there fails with Unavailable, "ttrpc: closed".
 */
export class Client {
  readonly #channel: Channel;
  readonly #calls = new Map<number, ClientCall>();
  readonly #closeListeners: (() => void)[] = [];
  readonly #host: CallHost;
  #nextStreamId = 1;
  #closedByUs = false;

  /** Speaks over a connection that the caller has made. */
  constructor(stream: Duplex) {
    this.#channel = new Channel(
      stream,
      { onFrame: (frame) => this.#receive(frame), onClose: (error) => this.#closed(error) },
      { readOnlyWhileWritable: false },
    );
    this.#host = {
      channel: this.#channel,
      open: (call, encode) => this.#open(call, encode),
      forget: (streamId) => void this.#calls.delete(streamId),
    };
  }

  /**
   * Connects to a unix socket (a path, with or without `unix://`), or takes a connection that is made already.
   * Throws a StatusError (Unavailable) where nobody listens.
   */
  static async connect(target: string | Duplex, options: ConnectOptions = {}): Promise<Client> {
    if (target instanceof Duplex) return new Client(target);
    const path = target.startsWith('unix://') ? target.slice('unix://'.length) : target;
    const socket = createConnection(path);
    try {
      await once(socket, 'connect', options);
    } catch (cause) {
      socket.destroy();
      if (options.signal?.aborted) throw canceledError(options.signal);
      throw new StatusError(
        Code.Unavailable,
        `ttrpc: cannot connect to ${path}: ${toStatusError(cause).message}`,
        { cause },
      );
    }
    return new Client(socket);
  }

  get closed(): boolean {
    return this.#closedByUs || this.#channel.closed;
  }

  /** Calls that have not been answered yet. */
  get calls(): number {
    return this.#calls.size;
  }

  /** A service's methods, typed; `fullName` calls it under another name than the definition's. */
  service<D extends ServiceDefinition>(definition: D, options: { fullName?: string } = {}): ServiceClient<D> {
    const service = options.fullName ?? definition.fullName;
    const methods = Object.entries(definition.methods).map(([key, method]) => [
      key,
      (request: unknown, callOptions: CallOptions = {}) => this.#call(service, method, request, callOptions),
    ]);
    return Object.fromEntries(methods) as ServiceClient<D>;
  }

  /** Calls back once when the connection is gone, at once if it is already. */
  onClose(listener: () => void): void {
    if (this.#channel.closed) listener();
    else this.#closeListeners.push(listener);
  }

  /** Drops the connection; calls in flight fail. */
  close(): void {
    this.#closedByUs = true;
    this.#channel.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #call(service: string, method: MethodDefinition, request: unknown, options: CallOptions): unknown {
    const head: Head = {
      service,
      method: method.name,
      ...(options.timeout !== undefined && { timeoutNano: BigInt(Math.round(options.timeout * 1e6)) }),
      ...(options.metadata !== undefined && { metadata: Metadata.from(options.metadata) }),
    };
    if (!method.requestStream && !method.responseStream) {
      return new Promise((resolve, reject) => {
        new UnaryCall(this.#host, method, { resolve, reject }).start(head, request, options);
      });
    }
    const call = new StreamCall(this.#host, method);
    call.start(head, request, options);
    return method.responseStream ? call.responses : call.response;
  }

  /** Throws what `encode` throws; the id is used up only by what was sent. */
  #open(call: ClientCall, encode: (streamId: number) => Uint8Array): number {
    if (this.closed) throw closedError();
    const streamId = this.#nextStreamId;
    if (streamId > HIGHEST_STREAM_ID) {
      throw new StatusError(Code.Unavailable, 'ttrpc: the connection has used up its stream ids');
    }
    const bytes = encode(streamId);
    this.#nextStreamId += 2;
    this.#calls.set(streamId, call);
    this.#channel.send(bytes);
    return streamId;
  }

  #receive(frame: Frame): void {
    if (frame.type !== FrameType.Response && frame.type !== FrameType.Data) return;
    // Answers to calls that were given up arrive late, and are nobody's.
    this.#calls.get(frame.streamId)?.receive(frame);
  }

  #closed(error: Error | undefined): void {
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) call.fail(closedError(error));
    for (const listener of this.#closeListeners.splice(0)) listener();
  }
}
