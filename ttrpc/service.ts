// The types of services: what a definition, its handlers and its client must look like, derived from each other.
import type { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import type { Context } from './context.ts';
import type { MetadataInit } from './metadata.ts';

/** A protobuf message's codec, as ts-proto generates it. */
export interface MessageType<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter;
  decode(input: BinaryReader | Uint8Array, length?: number): T;
}

export interface MethodDefinition {
  readonly name: string;
  readonly requestType: MessageType<unknown>;
  readonly requestStream: boolean;
  readonly responseType: MessageType<unknown>;
  readonly responseStream: boolean;
}

/** A service, as ts-proto writes it with `outputServices=generic-definitions`. */
export interface ServiceDefinition {
  readonly name: string;
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

export type RequestOf<M extends MethodDefinition> = ReturnType<M['requestType']['decode']>;
export type ResponseOf<M extends MethodDefinition> = ReturnType<M['responseType']['decode']>;

type Argument<M extends MethodDefinition> = M['requestStream'] extends true
  ? AsyncIterable<RequestOf<M>>
  : RequestOf<M>;

/** What a service must have for one of its methods. */
export type Handler<M extends MethodDefinition> = M['responseStream'] extends true
  ? (request: Argument<M>, context: Context) => AsyncIterable<ResponseOf<M>>
  : (request: Argument<M>, context: Context) => Promise<ResponseOf<M>>;

/** What `Server.register` takes: a handler for every method of the definition. */
export type Handlers<D extends ServiceDefinition> = {
  readonly [K in keyof D['methods']]: Handler<D['methods'][K]>;
};

export interface CallOptions {
  /** Milliseconds until the call fails with DeadlineExceeded. The server is told of it, too. */
  timeout?: number;
  metadata?: MetadataInit;
  /** When it aborts, the call fails with Canceled. */
  signal?: AbortSignal;
}

type Sent<M extends MethodDefinition> = M['requestStream'] extends true
  ? AsyncIterable<RequestOf<M>> | Iterable<RequestOf<M>>
  : RequestOf<M>;

/** A method as its client calls it. Leaving the loop over a response stream early cancels the call. */
export type ClientMethod<M extends MethodDefinition> = M['responseStream'] extends true
  ? (request: Sent<M>, options?: CallOptions) => AsyncIterableIterator<ResponseOf<M>>
  : (request: Sent<M>, options?: CallOptions) => Promise<ResponseOf<M>>;

export type ServiceClient<D extends ServiceDefinition> = {
  readonly [K in keyof D['methods']]: ClientMethod<D['methods'][K]>;
};
