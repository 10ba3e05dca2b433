// ttrpc for Node: see README.md for how to use it and PROTOCOL.md for what is on the wire.
export { Client } from './client.ts';
export type { ConnectOptions } from './client.ts';
export type { Connection, Context } from './context.ts';
export type { Extension } from './extension.ts';
export { FrameDecoder, FrameFlag, FrameType, HEADER_LENGTH, MAX_BODY, writeHeader } from './frame.ts';
export type { Frame, MessageFrame, OversizeFrame } from './frame.ts';
export { DEFAULT_LIMITS } from './limits.ts';
export type { Limits } from './limits.ts';
export type { Logger } from './logger.ts';
export { Metadata, NAMESPACE_KEY } from './metadata.ts';
export type { MetadataInit } from './metadata.ts';
export { Server } from './server.ts';
export type { ServerOptions } from './server.ts';
export type {
  CallOptions,
  ClientMethod,
  Handler,
  Handlers,
  MessageType,
  MethodDefinition,
  RequestOf,
  ResponseOf,
  ServiceClient,
  ServiceDefinition,
} from './service.ts';
export { Code, StatusError, toStatusError } from './status.ts';
export type { StatusDetail, StatusErrorOptions } from './status.ts';
