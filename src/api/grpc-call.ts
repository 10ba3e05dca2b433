import {
  Cancelled,
  DeadlineExceeded,
  Internal,
  messageOf,
  ResourceExhausted,
  type StasisError,
  Unimplemented,
} from '../errors.ts';
import type { Field } from '../http2/hpack.ts';
import type { ServerStream, StreamHandler } from '../http2/server-stream.ts';
import { MAX_MESSAGE_BYTES } from './grpc-client.ts';
import { errorFields, metadataOf, okFields, responseFields, timeoutOf } from './grpc-fields.ts';
import type { GrpcContext, Route } from './grpc-server.ts';

/** Compressed flag and length, before each message. */
const PREFIX_LENGTH = 5;
/** The longest time that a timer can be set to; a call with more has no deadline. */
const MAX_TIMER_MS = 0x7fffffff;

/**
 * One call: collects its request, runs the handler, sends what that answers. What a handler does not ask for is not made: a
 * Stat takes less time than an AbortSignal.
 */
export class ServerCall implements StreamHandler, GrpcContext {
  readonly #route: Route;
  readonly #stream: ServerStream;
  readonly #fields: readonly Field[];
  readonly #timer: NodeJS.Timeout | undefined;
  #pieces: Buffer[] = [];
  #held = 0;
  #responded = false;
  #ended = false;
  /** Why the call was broken off. */
  #reason: StasisError | undefined;
  #controller: AbortController | undefined;
  #metadata: ReadonlyMap<string, string> | undefined;

  constructor(route: Route, stream: ServerStream, fields: readonly Field[]) {
    this.#route = route;
    this.#stream = stream;
    this.#fields = fields;
    const timeout = fields.find(([name]) => name === 'grpc-timeout')?.[1];
    if (timeout === undefined) return;
    const milliseconds = timeoutOf(timeout);
    if (milliseconds === undefined || milliseconds > MAX_TIMER_MS) return;
    this.#timer = setTimeout(() => {
      const reason = new DeadlineExceeded(`the call was not answered in its ${timeout}`);
      this.#break(reason);
      this.#fail(reason);
    }, milliseconds);
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  get metadata(): ReadonlyMap<string, string> {
    return (this.#metadata ??= metadataOf(this.#fields));
  }

  data(bytes: Buffer): void {
    if (this.#ended) return;
    this.#pieces.push(bytes);
    this.#held += bytes.length;
    if (this.#held > PREFIX_LENGTH + MAX_MESSAGE_BYTES) {
      this.#pieces = [];
      this.#fail(new ResourceExhausted(`a request is longer than ${MAX_MESSAGE_BYTES} bytes`));
    }
  }

  end(): void {
    if (this.#ended) return;
    let request: unknown;
    try {
      request = this.#route.method.requestType.decode(this.#message());
    } catch (error) {
      const unread = `the request cannot be read: ${messageOf(error)}`;
      return this.#fail(error instanceof Unimplemented ? error : new Internal(unread));
    }
    if (this.#route.method.responseStream) void this.#sendAll(request);
    else void this.#sendOne(request);
  }

  cancelled(): void {
    this.#break(new Cancelled('the client cancelled the call'));
    this.#end();
  }

  /** The request's bytes. @throws Error where there are more or fewer than its prefix says */
  #message(): Buffer {
    const [first] = this.#pieces;
    const body = this.#pieces.length === 1 && first !== undefined ? first : Buffer.concat(this.#pieces);
    this.#pieces = [];
    if (body[0] === 1) throw new Unimplemented('compressed messages are not read');
    if (body.length < PREFIX_LENGTH || body.readUInt32BE(1) !== body.length - PREFIX_LENGTH)
      throw new Error(`${body.length} bytes are not one message`);
    return body.subarray(PREFIX_LENGTH);
  }

  async #sendOne(request: unknown): Promise<void> {
    try {
      this.#send(await this.#route.run(request, this));
      this.#finish(okFields);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #sendAll(request: unknown): Promise<void> {
    try {
      for await (const message of this.#route.run(request, this) as AsyncIterable<unknown>) {
        if (this.#reason !== undefined) throw this.#reason;
        if (!this.#send(message)) await this.#stream.drained();
      }
      this.#finish(okFields);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** @returns whether the client takes more now */
  #send(message: unknown): boolean {
    if (this.#ended) return true;
    const bytes = this.#route.method.responseType.encode(message).finish();
    if (bytes.length > MAX_MESSAGE_BYTES)
      throw new ResourceExhausted(`an answer of ${bytes.length} bytes is longer than ${MAX_MESSAGE_BYTES}`);
    const body = Buffer.allocUnsafe(PREFIX_LENGTH + bytes.length);
    body[0] = 0;
    body.writeUInt32BE(bytes.length, 1);
    body.set(bytes, PREFIX_LENGTH);
    if (!this.#responded) this.#stream.respond(responseFields);
    this.#responded = true;
    return this.#stream.write(body);
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    this.#finish(errorFields(error, !this.#responded));
  }

  #finish(trailers: Buffer): void {
    if (this.#ended) return;
    if (!this.#responded && trailers === okFields) this.#stream.respond(responseFields);
    this.#end();
    this.#stream.finish(trailers);
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
  }

  #break(reason: StasisError): void {
    if (this.#ended) return;
    this.#reason = reason;
    this.#controller?.abort(reason);
  }
}
