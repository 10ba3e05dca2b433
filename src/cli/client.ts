// gRPC (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) over the small HTTP/2 connection: the
// same typed clients as src/api gives, for unary and server-streaming methods, loaded in a fraction of the time.
import { connect as connectSocket } from 'node:net';
import type { GrpcCallOptions, GrpcClient } from '../api/grpc-client.ts';
import { Cancelled, DeadlineExceeded, hasErrno, PermissionDenied, Unavailable } from '../errors.ts';
import type { MethodDefinition, ServiceDefinition } from '../../ttrpc/service.ts';
import { Call } from './call.ts';
import { Http2Connection } from '../http2/client-connection.ts';
import type { Field } from '../http2/hpack.ts';

/** Milliseconds in which a server that accepted a connection must say something. */
const GREETING_TIMEOUT = 10_000;

/** A connection to stasisd. It connects at the first call. */
export class Channel {
  readonly #path: string;
  readonly #metadata: Readonly<Record<string, string>>;
  readonly #greetingTimeout: number;
  #connection: Http2Connection | undefined;
  #unreachable: Error | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** `metadata` goes with every call. Its values must be printable ASCII. */
  constructor(path: string, metadata: Record<string, string> = {}, greetingTimeout = GREETING_TIMEOUT) {
    this.#path = path;
    this.#metadata = metadata;
    this.#greetingTimeout = greetingTimeout;
  }

  /** A client of one service over this connection. Methods with a request stream are refused. */
  service<D extends ServiceDefinition>(definition: D): GrpcClient<D> {
    const methods: Record<string, unknown> = {};
    for (const [key, method] of Object.entries(definition.methods)) {
      methods[key] = this.#method(`/${definition.fullName}/${method.name}`, method);
    }
    return methods as GrpcClient<D>;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#connection?.close();
  }

  #method(path: string, method: MethodDefinition): unknown {
    if (method.responseStream) {
      return (request: unknown, options: GrpcCallOptions = {}) =>
        this.#stream(path, method, request, options);
    }
    return async (request: unknown, options: GrpcCallOptions = {}) => {
      for await (const response of this.#stream(path, method, request, options)) return response;
      throw new Unavailable(`stasisd at ${this.#path} ended the call without an answer`);
    };
  }

  /** One call. Leaving the loop over its messages cancels it. */
  async *#stream(
    path: string,
    method: MethodDefinition,
    request: unknown,
    options: GrpcCallOptions,
  ): AsyncGenerator<unknown> {
    const { signal, timeoutMs } = options;
    if (signal?.aborted === true) throw new Cancelled('cancelled before it began');
    const call = new Call((error) => this.#explain(error));
    const body = method.requestType.encode(request).finish();
    const fields = this.#fields(path, timeoutMs, options.metadata);
    const cancel = call.start(this.#connect(), fields, body);
    const stop = (error: Error) => (): void => {
      cancel();
      call.fail(error);
    };
    const onAbort = stop(new Cancelled('cancelled'));
    signal?.addEventListener('abort', onAbort, { once: true });
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(stop(new DeadlineExceeded(`no answer from stasisd in ${timeoutMs} ms`)), timeoutMs);
    try {
      for await (const message of call.messages()) yield method.responseType.decode(message);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      cancel();
    }
  }

  #fields(path: string, timeoutMs: number | undefined, metadata: Record<string, string> = {}): Field[] {
    return [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', path],
      [':authority', 'localhost'],
      ['te', 'trailers'],
      ['content-type', 'application/grpc'],
      ...(timeoutMs === undefined ? [] : ([['grpc-timeout', `${Math.ceil(timeoutMs)}m`]] as const)),
      ...Object.entries({ ...this.#metadata, ...metadata }),
    ];
  }

  #connect(): Http2Connection {
    if (this.#connection !== undefined) return this.#connection;
    let connected = false;
    const socket = connectSocket(this.#path, () => (connected = true));
    // Once it was there, an error means that it was lost.
    socket.on('error', (error: Error) => {
      if (!connected) this.#unreachable = unreachable(this.#path, error);
    });
    const connection = new Http2Connection(socket);
    this.#timer = setTimeout(() => {
      if (connection.greeted) return;
      this.#unreachable = new Unavailable(
        `stasisd at ${this.#path} accepts connections but does not answer`,
        { subject: this.#path, remedy: 'look whether stasisd is stopped or stuck, and restart it' },
      );
      connection.close();
    }, this.#greetingTimeout);
    this.#timer.unref();
    this.#connection = connection;
    return connection;
  }

  /** A broken connection in the user's words. */
  #explain(error: Error): Error {
    return (
      this.#unreachable ??
      new Unavailable(`lost stasisd at ${this.#path} during the call`, {
        subject: this.#path,
        cause: error,
        remedy: 'see whether stasisd runs and what its log says, then look at the state with `stasis ls`',
      })
    );
  }
}

function unreachable(path: string, error: Error): Error {
  const start = 'start stasisd, or name its socket with --socket or STASIS_ADDRESS';
  if (hasErrno(error, 'EACCES') || hasErrno(error, 'EPERM')) {
    return new PermissionDenied(`may not connect to stasisd at ${path}`, {
      subject: path,
      cause: error,
      remedy: 'run stasis as root',
    });
  }
  const known: Record<string, string> = {
    ENOENT: 'there is no such socket',
    ECONNREFUSED: 'nobody listens on that socket',
    ENOTSOCK: 'that is not a socket',
    EINVAL: 'a socket path may have 107 bytes',
    ENAMETOOLONG: 'a socket path may have 107 bytes',
  };
  const code = Object.keys(known).find((name) => hasErrno(error, name));
  const cause = code === undefined ? error : new Error(known[code]);
  return new Unavailable(`cannot reach stasisd at ${path}`, { subject: path, cause, remedy: start });
}
