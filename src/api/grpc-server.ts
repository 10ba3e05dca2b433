import {
  Metadata,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition as GrpcServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { MethodDefinition, RequestOf, ResponseOf, ServiceDefinition } from '../../ttrpc/service.ts';
import { Cancelled, codeOf, messageOf, StasisError } from '../errors.ts';
import { ErrorInfo } from '../proto/gen/stasis/stasis.ts';
import { errorTrailer } from './trailer.ts';

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

/** A generic definition in the form that grpc-js registers. */
export function grpcService(definition: ServiceDefinition): GrpcServiceDefinition {
  return Object.fromEntries(
    Object.entries(definition.methods).map(([key, method]) => [
      key,
      {
        path: `/${definition.fullName}/${method.name}`,
        originalName: key,
        requestStream: method.requestStream,
        responseStream: method.responseStream,
        requestSerialize: (message: unknown) => bytesOf(method.requestType.encode(message).finish()),
        requestDeserialize: (bytes: Buffer) => method.requestType.decode(bytes),
        responseSerialize: (message: unknown) => bytesOf(method.responseType.encode(message).finish()),
        responseDeserialize: (bytes: Buffer) => method.responseType.decode(bytes),
      },
    ]),
  );
}

/** The same bytes as a Buffer, not a copy of them. */
function bytesOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** Handlers in the form that grpc-js calls. Only unary requests are served; responses may stream. */
export function grpcImplementation<D extends ServiceDefinition>(
  definition: D,
  handlers: GrpcHandlers<D>,
): UntypedServiceImplementation {
  const implementation: UntypedServiceImplementation = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    const handler = handlers[key as keyof GrpcHandlers<D>] as unknown;
    if (method.responseStream) {
      const run = handler as (request: unknown, context: GrpcContext) => AsyncIterable<unknown>;
      implementation[key] = (call: ServerWritableStream<unknown, unknown>) => {
        void stream(call, (context) => run(call.request, context));
      };
    } else {
      const run = handler as (request: unknown, context: GrpcContext) => Promise<unknown>;
      implementation[key] = (call: ServerUnaryCall<unknown, unknown>, done: sendUnaryData<unknown>) => {
        run(call.request, new CallContext(call)).then(
          (response) => done(null, response),
          (error: unknown) => done(grpcError(error)),
        );
      };
    }
  }
  return implementation;
}

/** A thrown error as gRPC sends it: status, message, and for our own errors an ErrorInfo trailer. */
export function grpcError(error: unknown): { code: number; details: string; metadata: Metadata } {
  const metadata = new Metadata();
  if (error instanceof StasisError) {
    metadata.set(
      errorTrailer,
      Buffer.from(
        ErrorInfo.encode({
          reason: error.reason ?? '',
          subject: error.subject ?? '',
          cause: error.cause === undefined ? '' : messageOf(error.cause),
          remedy: error.remedy ?? '',
        }).finish(),
      ),
    );
  }
  return { code: codeOf(error), details: messageOf(error), metadata };
}

async function stream(
  call: ServerWritableStream<unknown, unknown>,
  run: (context: GrpcContext) => AsyncIterable<unknown>,
): Promise<void> {
  const context = new CallContext(call);
  try {
    for await (const message of run(context)) {
      if (context.signal.aborted) throw new Cancelled('the client cancelled the call');
      if (!call.write(message)) await drained(call, context.signal);
    }
    call.end();
  } catch (error) {
    call.emit('error', grpcError(error));
  }
}

function drained(call: ServerWritableStream<unknown, unknown>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      call.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    call.once('drain', done);
    signal.addEventListener('abort', done, { once: true });
  });
}

interface Cancellable {
  readonly metadata: Metadata;
  readonly cancelled: boolean;
  on(event: 'cancelled', listener: () => void): unknown;
}

/**
 * Makes what a handler asks for, and nothing else: grpc-js says of every call that ended that it was cancelled, and a
 * controller with its error would cost a Stat a tenth of its time.
 */
class CallContext implements GrpcContext {
  readonly #call: Cancellable;
  #signal: AbortSignal | undefined;
  #metadata: Map<string, string> | undefined;

  constructor(call: Cancellable) {
    this.#call = call;
  }

  get signal(): AbortSignal {
    if (this.#signal !== undefined) return this.#signal;
    const controller = new AbortController();
    const abort = (): void => controller.abort(new Cancelled('the client cancelled the call'));
    if (this.#call.cancelled) abort();
    else this.#call.on('cancelled', abort);
    this.#signal = controller.signal;
    return this.#signal;
  }

  get metadata(): ReadonlyMap<string, string> {
    if (this.#metadata !== undefined) return this.#metadata;
    this.#metadata = new Map();
    for (const [key, value] of Object.entries(this.#call.metadata.getMap())) {
      if (typeof value === 'string') this.#metadata.set(key, value);
    }
    return this.#metadata;
  }
}
