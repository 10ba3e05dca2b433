// The client's side of a call that streams its requests, its responses or both.
import type { Frame } from './frame.ts';
import { FrameFlag, FrameType } from './frame.ts';
import { Inbox, decodeError } from './inbox.ts';
import { encodeCancel, encodeData, encodeEnd, encodeRequest, oversizeError } from './message.ts';
import type { CallOptions, MethodDefinition } from './service.ts';
import { Code, StatusError, toStatusError } from './status.ts';
import { canceledError, unwrap, watch } from './unary-call.ts';
import type { CallHost, ClientCall, Head } from './unary-call.ts';

type Messages = AsyncIterable<unknown> | Iterable<unknown>;

/**
 * INVARIANTS
 * - `#finish` runs once, whoever ends the call: the server, the caller, the timeout or the connection. After it
 *   nothing is sent for this call, and the caller's request iterator has been returned.
 * - The server is told (Cancel) of every end that is not its own.
 */
export class StreamCall implements ClientCall {
  readonly #host: CallHost;
  readonly #method: MethodDefinition;
  readonly #inbox: Inbox<unknown>;
  readonly #response = Promise.withResolvers<unknown>();
  #streamId = 0;
  #finished = false;
  #requests: AsyncIterator<unknown> | Iterator<unknown> | undefined;
  #unwatch: () => void = () => undefined;

  constructor(host: CallHost, method: MethodDefinition) {
    this.#host = host;
    this.#method = method;
    this.#inbox = new Inbox(method.responseType, host.channel, () => this.#cancel());
    // Of the two ways to hear the end, the caller gets one; the other must not count as unhandled.
    this.#response.promise.catch(() => undefined);
  }

  /** For methods that stream their responses. */
  get responses(): AsyncIterableIterator<unknown> {
    return this.#inbox;
  }

  /** For methods that do not. */
  get response(): Promise<unknown> {
    return this.#response.promise;
  }

  start(head: Head, request: unknown, options: CallOptions): void {
    const { requestStream, requestType } = this.#method;
    try {
      if (options.signal?.aborted) throw canceledError(options.signal);
      this.#streamId = this.#host.open(this, (streamId) =>
        requestStream
          ? encodeRequest(streamId, FrameFlag.RemoteOpen, head)
          : encodeRequest(streamId, FrameFlag.RemoteClosed, head, { type: requestType, message: request }),
      );
    } catch (error) {
      this.fail(toStatusError(error));
      return;
    }
    this.#unwatch = watch(options, (error) => this.#giveUp(error));
    if (requestStream) void this.#pump(request as Messages);
  }

  receive(frame: Frame): void {
    try {
      if (frame.type === FrameType.Response) this.#receiveResponse(unwrap(frame));
      else this.#receiveData(frame);
    } catch (error) {
      const status = toStatusError(error);
      if (frame.type === FrameType.Response) this.fail(status);
      else this.#giveUp(status);
    }
  }

  fail(error: StatusError): void {
    this.#finish();
    this.#inbox.fail(error);
    this.#response.reject(error);
  }

  // A response may end a stream of data, too; then it holds the last message, or none if it is empty.
  #receiveResponse(payload: Uint8Array): void {
    if (this.#method.responseStream) {
      if (payload.length > 0) this.#inbox.push(payload);
      this.#inbox.end();
      this.#finish();
      return;
    }
    let response: unknown;
    try {
      response = this.#method.responseType.decode(payload);
    } catch (cause) {
      throw decodeError(cause);
    }
    this.#finish();
    this.#response.resolve(response);
  }

  #receiveData(frame: Frame): void {
    if (frame.kind === 'oversize') throw oversizeError(frame.length);
    if (!this.#method.responseStream) {
      throw new StatusError(Code.Internal, 'ttrpc: received data from non-streaming server');
    }
    if ((frame.flags & FrameFlag.NoData) === 0) this.#inbox.push(frame.body);
    if ((frame.flags & FrameFlag.RemoteClosed) === 0) return;
    this.#inbox.end();
    this.#finish();
  }

  async #pump(messages: Messages): Promise<void> {
    try {
      const iterator =
        Symbol.asyncIterator in messages ? messages[Symbol.asyncIterator]() : messages[Symbol.iterator]();
      this.#requests = iterator;
      for (;;) {
        const next = await iterator.next();
        if (this.#finished) return;
        if (next.done === true) break;
        const pause = this.#host.channel.sendPaced(
          encodeData(this.#streamId, this.#method.requestType, next.value),
        );
        if (pause !== undefined) await pause;
        if (this.#finished) return;
      }
      this.#requests = undefined;
      this.#host.channel.send(encodeEnd(this.#streamId));
    } catch (error) {
      if (!this.#finished) this.#giveUp(toStatusError(error));
    }
  }

  #giveUp(error: StatusError): void {
    this.#cancel();
    this.fail(error);
  }

  /** Ends the call without an error for anybody to hear: its caller has left. */
  #cancel(): void {
    if (this.#finished) return;
    this.#host.channel.send(encodeCancel(this.#streamId));
    this.#finish();
  }

  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#unwatch();
    this.#host.forget(this.#streamId);
    const requests = this.#requests;
    this.#requests = undefined;
    // Not awaited: a generator that waits for its next message returns only when that has come.
    if (requests?.return !== undefined) Promise.resolve(requests.return()).catch(() => undefined);
  }
}
