// What a handler knows about the call that it serves.
import type { Duplex } from 'node:stream';
import { Code, StatusError } from './status.ts';
import type { Metadata } from './metadata.ts';

/** One client's connection, as handlers see it. */
export interface Connection {
  /** Unique among the connections of this process. */
  readonly id: number;
  /** The socket, to ask it for its peer; reading from or writing to it breaks the protocol. */
  readonly stream: Duplex;
  readonly closed: boolean;
  /** Calls that have not been answered yet. */
  readonly calls: number;
  /** Calls back once when the connection is gone, at once if it is already. */
  onClose(listener: () => void): void;
  /** Drops the connection; its calls' signals abort. */
  close(): void;
}

export interface Context {
  /** The full name under which the service was called, e.g. `containerd.task.v3.Task`. */
  readonly service: string;
  /** The method's name on the wire, e.g. `Create`. */
  readonly method: string;
  readonly metadata: Metadata;
  /** Milliseconds since 1970, as of Date.now(), when the client gives up; undefined where it set no timeout. */
  readonly deadline: number | undefined;
  /**
   * Aborts when the client cancels the call, its timeout passes or its connection closes. The reason is a
   * StatusError, so throwing it (`signal.throwIfAborted()`) answers with the right code.
   */
  readonly signal: AbortSignal;
  readonly connection: Connection;
}

const LONGEST_TIMER = 2 ** 31 - 1;

/**
 * The Context that the server hands out. The signal and its timer are made when a handler asks for them: most
 * never do, and both cost more than the rest of a call.
 */
export class CallContext implements Context {
  readonly service: string;
  readonly method: string;
  readonly metadata: Metadata;
  readonly deadline: number | undefined;
  readonly connection: Connection;
  #controller: AbortController | undefined;
  #timer: NodeJS.Timeout | undefined;
  #reason: StatusError | undefined;
  #ended = false;

  constructor(
    connection: Connection,
    request: { service: string; method: string; metadata: Metadata; timeoutNano: number },
  ) {
    this.connection = connection;
    this.service = request.service;
    this.method = request.method;
    this.metadata = request.metadata;
    this.deadline = request.timeoutNano === 0 ? undefined : Date.now() + request.timeoutNano / 1e6;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
      else if (this.deadline !== undefined && !this.#ended) this.#arm(this.deadline - Date.now());
    }
    return this.#controller.signal;
  }

  /** Why the call was given up; undefined while it was not. */
  get abortReason(): StatusError | undefined {
    return this.#reason;
  }

  abort(reason: StatusError): void {
    if (this.#ended || this.#reason !== undefined) return;
    this.#reason = reason;
    clearTimeout(this.#timer);
    this.#controller?.abort(reason);
  }

  /** The call was answered: its signal never aborts from now on. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
  }

  #arm(milliseconds: number): void {
    if (milliseconds <= 0) this.#expire();
    else if (milliseconds <= LONGEST_TIMER)
      this.#timer = setTimeout(() => this.#expire(), milliseconds).unref();
  }

  #expire(): void {
    this.abort(new StatusError(Code.DeadlineExceeded, 'context deadline exceeded'));
  }
}
