// The client's side of a call that has one request and one response, and what all kinds of calls share.
import type { Channel } from './channel.ts';
import type { Frame } from './frame.ts';
import { FrameType } from './frame.ts';
import { decodeError } from './inbox.ts';
import { decodeResponse, encodeCancel, encodeRequest, oversizeError } from './message.ts';
import type { RequestHead } from './message.ts';
import type { CallOptions, MethodDefinition } from './service.ts';
import { Code, StatusError, toStatusError } from './status.ts';

export type Head = RequestHead;

/** A call as the client knows it. */
export interface ClientCall {
  receive(frame: Frame): void;
  fail(error: StatusError): void;
}

/** What the client does for its calls. */
export interface CallHost {
  readonly channel: Channel;
  open(call: ClientCall, encode: (streamId: number) => Uint8Array): number;
  forget(streamId: number): void;
}

const LONGEST_TIMER = 2 ** 31 - 1;
const NOTHING = () => undefined;

/** Calls back when a call's time is over or its caller gives it up; returns what stops the watch. */
export function watch(options: CallOptions, onEnd: (error: StatusError) => void): () => void {
  const { timeout, signal } = options;
  if (timeout === undefined && signal === undefined) return NOTHING;
  const expire = () => onEnd(new StatusError(Code.DeadlineExceeded, 'context deadline exceeded'));
  const cancel = () => onEnd(canceledError(signal));
  const timer =
    timeout !== undefined && timeout <= LONGEST_TIMER ? setTimeout(expire, Math.max(timeout, 0)) : undefined;
  signal?.addEventListener('abort', cancel, { once: true });
  return () => {
    clearTimeout(timer);
    signal?.removeEventListener('abort', cancel);
  };
}

export function canceledError(signal: AbortSignal | undefined): StatusError {
  return new StatusError(Code.Canceled, 'context canceled', { cause: signal?.reason });
}

/** The payload of a response; throws the error that the response carries, or that it is. */
export function unwrap(frame: Frame): Uint8Array {
  if (frame.kind === 'oversize') throw oversizeError(frame.length);
  let response;
  try {
    response = decodeResponse(frame.body);
  } catch (cause) {
    throw new StatusError(Code.Internal, `ttrpc: malformed response: ${String(cause)}`, { cause });
  }
  if (response.status !== undefined) throw response.status;
  return response.payload;
}

export class UnaryCall implements ClientCall {
  readonly #host: CallHost;
  readonly #method: MethodDefinition;
  readonly #promise: { resolve: (response: unknown) => void; reject: (error: StatusError) => void };
  #streamId = 0;
  #unwatch: () => void = NOTHING;

  constructor(
    host: CallHost,
    method: MethodDefinition,
    promise: { resolve: (response: unknown) => void; reject: (error: StatusError) => void },
  ) {
    this.#host = host;
    this.#method = method;
    this.#promise = promise;
  }

  start(head: Head, message: unknown, options: CallOptions): void {
    if (options.signal?.aborted) {
      this.#promise.reject(canceledError(options.signal));
      return;
    }
    const body = { type: this.#method.requestType, message };
    try {
      this.#streamId = this.#host.open(this, (streamId) => encodeRequest(streamId, 0, head, body));
    } catch (error) {
      this.#promise.reject(toStatusError(error));
      return;
    }
    this.#unwatch = watch(options, (error) => {
      this.#host.channel.send(encodeCancel(this.#streamId));
      this.fail(error);
    });
  }

  receive(frame: Frame): void {
    let response: unknown;
    try {
      if (frame.type !== FrameType.Response) {
        throw new StatusError(Code.Internal, 'ttrpc: received data on a unary stream');
      }
      const payload = unwrap(frame);
      try {
        response = this.#method.responseType.decode(payload);
      } catch (cause) {
        throw decodeError(cause);
      }
    } catch (error) {
      this.fail(toStatusError(error));
      return;
    }
    this.#end();
    this.#promise.resolve(response);
  }

  fail(error: StatusError): void {
    this.#end();
    this.#promise.reject(error);
  }

  #end(): void {
    this.#unwatch();
    this.#host.forget(this.#streamId);
  }
}
