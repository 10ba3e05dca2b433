import { createServer, type Server as SocketServer } from 'node:net';
import type { Duplex } from 'node:stream';
import type { MethodDefinition, RequestOf, ResponseOf, ServiceDefinition } from '../../ttrpc/service.ts';
import { Unimplemented } from '../errors.ts';
import type { Field } from '../http2/hpack.ts';
import { ServerConnection } from '../http2/server-connection.ts';
import type { ServerStream, StreamHandler } from '../http2/server-stream.ts';
import { ServerCall } from './grpc-call.ts';
import { errorFields, httpStatus } from './grpc-fields.ts';

/** What a handler knows about its call. */
export interface GrpcContext {
  /** Aborted when the client cancels, its deadline passes or its connection closes. */
  readonly signal: AbortSignal;
  /** Text metadata of the request, first value of each key. */
  readonly metadata: ReadonlyMap<string, string>;
}

type Argument<M extends MethodDefinition> = M['requestStream'] extends true
  ? AsyncIterable<RequestOf<M>>
  : RequestOf<M>;

/** A handler for every method; a wrong type or a missing method does not compile. */
export type GrpcHandlers<D extends ServiceDefinition> = {
  readonly [K in keyof D['methods']]: D['methods'][K]['responseStream'] extends true
    ? (request: Argument<D['methods'][K]>, context: GrpcContext) => AsyncIterable<ResponseOf<D['methods'][K]>>
    : (request: Argument<D['methods'][K]>, context: GrpcContext) => Promise<ResponseOf<D['methods'][K]>>;
};

/** A method and what answers it: a promise of one message, or messages. */
export interface Route {
  readonly method: MethodDefinition;
  readonly run: (request: unknown, context: GrpcContext) => unknown;
}

/** Long enough for a call that is under way, and short enough for a service's stop. */
const CLOSE_TIMEOUT_MS = 3000;

/** gRPC over connections that are handed to it. Requests are single messages; responses may stream. */
export class GrpcServer {
  readonly #routes = new Map<string, Route>();
  readonly #connections = new Set<ServerConnection>();

  /** @throws Error for a service with a method that takes a stream: none of containerd's or ours has one */
  addService<D extends ServiceDefinition>(definition: D, handlers: GrpcHandlers<D>): void {
    for (const [key, method] of Object.entries(definition.methods)) {
      const path = `/${definition.fullName}/${method.name}`;
      if (method.requestStream) throw new Error(`${path} takes a stream, which is not served`);
      const run = handlers[key as keyof GrpcHandlers<D>] as Route['run'];
      this.#routes.set(path, { method, run });
    }
  }

  /** Serves a connection to its end. */
  serve(socket: Duplex): void {
    const connection = new ServerConnection(socket, (stream, fields) => this.#begin(stream, fields));
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
  }

  /** Listens on a unix socket for clients of any kind. */
  async listen(path: string): Promise<SocketServer> {
    const sockets = createServer((socket) => this.serve(socket));
    await new Promise<void>((resolve, reject) => {
      sockets.once('error', reject);
      sockets.listen(path, resolve);
    });
    return sockets;
  }

  /** Takes no more calls, lets those that run finish for a while, and closes all connections. */
  async close(timeoutMs = CLOSE_TIMEOUT_MS): Promise<void> {
    const connections = [...this.#connections];
    for (const connection of connections) connection.close();
    const timer = setTimeout(() => {
      for (const connection of connections) connection.destroy();
    }, timeoutMs);
    await Promise.all(connections.map(({ closed }) => closed));
    clearTimeout(timer);
  }

  #begin(stream: ServerStream, fields: readonly Field[]): StreamHandler {
    const path = valueOf(fields, ':path') ?? '';
    if (valueOf(fields, 'content-type')?.startsWith('application/grpc') !== true) {
      stream.finish(httpStatus(415)); // so gRPC's specification of HTTP/2
      return ignoring;
    }
    const route = this.#routes.get(path);
    if (route === undefined) {
      stream.finish(errorFields(new Unimplemented(`there is no method ${path} here`), true));
      return ignoring;
    }
    return new ServerCall(route, stream, fields);
  }
}

const ignoring: StreamHandler = {
  data: () => undefined,
  end: () => undefined,
  cancelled: () => undefined,
};

function valueOf(fields: readonly Field[], name: string): string | undefined {
  return fields.find(([key]) => key === name)?.[1];
}
