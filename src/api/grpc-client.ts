import { connect } from 'node:net';
import { Client, connectivityState, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { MethodDefinition, RequestOf, ResponseOf, ServiceDefinition } from '../../ttrpc/service.ts';
import { type Code, StasisError } from '../errors.ts';
import { ErrorInfo } from '../proto/gen/stasis/stasis.ts';
import { errorTrailer } from './trailer.ts';

export interface GrpcCallOptions {
  signal?: AbortSignal;
  /** Milliseconds. */
  timeoutMs?: number;
  metadata?: Record<string, string>;
}

/** Typed promise client of a generic definition; response streams are async iterables. */
export type GrpcClient<D extends ServiceDefinition> = {
  readonly [K in keyof D['methods']]: D['methods'][K] extends { requestStream: true }
    ? (
        requests: AsyncIterable<RequestOf<D['methods'][K]>>,
        options?: GrpcCallOptions,
      ) => AsyncIterable<ResponseOf<D['methods'][K]>>
    : D['methods'][K] extends { responseStream: true }
      ? (
          request: RequestOf<D['methods'][K]>,
          options?: GrpcCallOptions,
        ) => AsyncIterable<ResponseOf<D['methods'][K]>>
      : (
          request: RequestOf<D['methods'][K]>,
          options?: GrpcCallOptions,
        ) => Promise<ResponseOf<D['methods'][K]>>;
};

/** containerd sends and expects messages of up to 16 MiB; grpc-js receives 4 by default. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** grpc-js pauses for a second at most, by the options below. */
const RECONNECT_TIMEOUT_MS = 5000;

/** A connection to a gRPC server on a unix socket. It connects at the first call, and again when it broke. */
export class GrpcChannel {
  readonly #client: Client;
  readonly #socket: string;
  readonly #metadata: Record<string, string>;
  readonly #explain: (error: StasisError) => Error;

  /** `explain` makes of a call's error the one that its caller shall see. */
  constructor(
    socket: string,
    metadata: Record<string, string> = {},
    explain: (error: StasisError) => Error = (error) => error,
  ) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1000,
      'grpc.default_authority': 'localhost',
    });
    this.#socket = socket;
    this.#metadata = metadata;
    this.#explain = explain;
  }

  /** A client of one service over this connection. */
  service<D extends ServiceDefinition>(definition: D): GrpcClient<D> {
    const methods: Record<string, unknown> = {};
    for (const [key, method] of Object.entries(definition.methods)) {
      methods[key] = this.#method(`/${definition.fullName}/${method.name}`, method);
    }
    return methods as GrpcClient<D>;
  }

  close(): void {
    this.#client.close();
  }

  #method(path: string, method: MethodDefinition): unknown {
    const encode = (message: unknown): Buffer => Buffer.from(method.requestType.encode(message).finish());
    const decode = (bytes: Buffer): unknown => method.responseType.decode(bytes);
    if (method.requestStream) {
      return (requests: AsyncIterable<unknown>, options: GrpcCallOptions = {}) =>
        this.#duplex(path, encode, decode, requests, options);
    }
    if (method.responseStream) {
      return (request: unknown, options: GrpcCallOptions = {}) =>
        this.#stream(path, encode, decode, request, options);
    }
    return async (request: unknown, options: GrpcCallOptions = {}) => {
      await this.#reconnect();
      return new Promise((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          path,
          encode,
          decode,
          request,
          this.#headers(options),
          deadline(options),
          (error, response) => {
            options.signal?.removeEventListener('abort', cancel);
            if (error) reject(this.#explain(fromServiceError(error)));
            else resolve(response);
          },
        );
        const cancel = (): void => call.cancel();
        if (options.signal?.aborted === true) cancel();
        options.signal?.addEventListener('abort', cancel, { once: true });
      });
    };
  }

  /**
   * After a lost connection grpc-js refuses calls until its pause has passed, though the server may be back already:
   * where somebody listens again, wait for that. Where nobody does, the call fails at once.
   */
  async #reconnect(): Promise<void> {
    const state = this.#client.getChannel().getConnectivityState(true);
    if (state !== connectivityState.TRANSIENT_FAILURE || !(await listens(this.#socket))) return;
    await new Promise<void>((resolve) =>
      this.#client.waitForReady(Date.now() + RECONNECT_TIMEOUT_MS, () => resolve()),
    );
  }

  async *#stream(
    path: string,
    encode: (message: unknown) => Buffer,
    decode: (bytes: Buffer) => unknown,
    request: unknown,
    options: GrpcCallOptions,
  ): AsyncIterable<unknown> {
    const call = this.#client.makeServerStreamRequest(
      path,
      encode,
      decode,
      request,
      this.#headers(options),
      deadline(options),
    );
    const cancel = (): void => call.cancel();
    if (options.signal?.aborted === true) cancel();
    options.signal?.addEventListener('abort', cancel, { once: true });
    try {
      for await (const message of call) yield message;
    } catch (error) {
      throw isServiceError(error) ? this.#explain(fromServiceError(error)) : error;
    } finally {
      options.signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  async *#duplex(
    path: string,
    encode: (message: unknown) => Buffer,
    decode: (bytes: Buffer) => unknown,
    requests: AsyncIterable<unknown>,
    options: GrpcCallOptions,
  ): AsyncIterable<unknown> {
    const call = this.#client.makeBidiStreamRequest(
      path,
      encode,
      decode,
      this.#headers(options),
      deadline(options),
    );
    const cancel = (): void => call.cancel();
    if (options.signal?.aborted === true) cancel();
    options.signal?.addEventListener('abort', cancel, { once: true });
    let sendError: unknown;
    const sending = (async () => {
      for await (const request of requests) {
        if (!call.write(request)) await new Promise<void>((resolve) => call.once('drain', resolve));
      }
      call.end();
    })().catch((error: unknown) => {
      sendError = error;
      call.cancel();
    });
    try {
      for await (const message of call) yield message;
      await sending;
    } catch (error) {
      if (sendError instanceof Error) throw sendError;
      throw isServiceError(error) ? this.#explain(fromServiceError(error)) : error;
    } finally {
      options.signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  #headers(options: GrpcCallOptions): Metadata {
    const metadata = new Metadata();
    for (const [key, value] of Object.entries({ ...this.#metadata, ...options.metadata }))
      metadata.set(key, value);
    return metadata;
  }
}

function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function deadline(options: GrpcCallOptions): { deadline?: number } {
  return options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error;
}

/** What a server answered as one of our errors, with the ErrorInfo that a stasisd adds. */
export function fromServiceError(error: ServiceError): StasisError {
  const [bytes] = error.metadata?.get(errorTrailer) ?? [];
  const info = Buffer.isBuffer(bytes) ? ErrorInfo.decode(bytes) : undefined;
  const code = (error.code === status.OK ? status.UNKNOWN : error.code) as Code;
  return new StasisError(code, error.details, {
    cause: info?.cause === '' ? undefined : info?.cause,
    subject: info?.subject === '' ? undefined : info?.subject,
    remedy: info?.remedy === '' ? undefined : info?.remedy,
    reason: info?.reason === '' ? undefined : info?.reason,
  });
}
