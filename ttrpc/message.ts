// The two protobuf messages of ttrpc, Request and Response, put straight into frames.
//
// They are written by hand because a generated codec copies each payload twice on its way out (into its own
// buffer, then into the envelope) and once on its way in. Here the payload's own codec writes into the frame.
//
//   Request                          Response
//   1  string    service             1  Status  status   { 1 int32 code, 2 string message, 3 Any details }
//   2  string    method              2  bytes   payload
//   3  bytes     payload
//   4  int64     timeout_nano
//   5  KeyValue  metadata (repeated) { 1 string key, 2 string value }
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { FrameFlag, FrameType, HEADER_LENGTH, MAX_BODY, writeHeader } from './frame.ts';
import { Metadata } from './metadata.ts';
import type { MessageType } from './service.ts';
import { Code, StatusError } from './status.ts';
import type { StatusDetail } from './status.ts';

export interface RequestMessage {
  readonly service: string;
  readonly method: string;
  /** A view of the frame's body. */
  readonly payload: Uint8Array;
  /** 0 where the caller set none; negative where it had passed before the call was sent. */
  readonly timeoutNano: number;
  readonly metadata: Metadata;
}

export interface ResponseMessage {
  /** Undefined for success. */
  readonly status: StatusError | undefined;
  readonly payload: Uint8Array;
}

const EMPTY = new Uint8Array(0);
const HEADER_ROOM = new Uint8Array(HEADER_LENGTH);
const LARGEST_SPARE = 64 << 10;
const LONGEST_STATUS_MESSAGE = 32 << 10;

// A writer keeps its buffer, so one is kept from frame to frame. It is taken out while in use: a codec that throws
// or that encodes a frame of its own then cannot spoil it.
let spare: BinaryWriter | undefined;

function frame(
  streamId: number,
  type: number,
  flags: number,
  write: (writer: BinaryWriter) => void,
): Uint8Array {
  const writer = spare ?? new BinaryWriter();
  spare = undefined;
  writer.raw(HEADER_ROOM);
  write(writer);
  const bytes = writer.finish();
  if (bytes.length <= LARGEST_SPARE) spare = writer;
  const length = bytes.length - HEADER_LENGTH;
  if (length > MAX_BODY) throw oversizeError(length);
  writeHeader(bytes, length, streamId, type, flags);
  return bytes;
}

/** The same words as the Go library's, so that logs of both read alike. */
export function oversizeError(length: number): StatusError {
  return new StatusError(
    Code.ResourceExhausted,
    `message length ${String(length)} exceed maximum message size of ${String(MAX_BODY)}`,
  );
}

export interface RequestHead {
  readonly service: string;
  readonly method: string;
  readonly timeoutNano?: bigint;
  readonly metadata?: Metadata;
}

/** A request frame; `message` is left out where a stream's requests all follow as data. Throws when oversize. */
export function encodeRequest<T>(
  streamId: number,
  flags: number,
  head: RequestHead,
  body?: { readonly type: MessageType<T>; readonly message: T },
): Uint8Array {
  return frame(streamId, FrameType.Request, flags, (writer) => {
    writer.uint32(10).string(head.service).uint32(18).string(head.method);
    if (body !== undefined) body.type.encode(body.message, writer.uint32(26).fork()).join();
    if (head.timeoutNano !== undefined) writer.uint32(32).int64(head.timeoutNano);
    if (head.metadata === undefined) return;
    for (const [key, value] of head.metadata) {
      writer.uint32(42).fork().uint32(10).string(key).uint32(18).string(value).join();
    }
  });
}

/** A response frame of success, which has no status. Throws when oversize. */
export function encodeResponse<T>(streamId: number, type: MessageType<T>, message: T): Uint8Array {
  return frame(streamId, FrameType.Response, 0, (writer) => {
    type.encode(message, writer.uint32(18).fork()).join();
  });
}

/** A response frame of failure. Never throws: what does not fit is cut off. */
export function encodeStatus(streamId: number, error: StatusError): Uint8Array {
  const message = error.message.slice(0, LONGEST_STATUS_MESSAGE);
  const code = error.code !== Code.OK && (error.code | 0) === error.code ? error.code : Code.Unknown;
  const size = error.details.reduce(
    (sum, { typeUrl, value }) => sum + typeUrl.length * 3 + value.length + 16,
    0,
  );
  const details = size <= MAX_BODY / 2 ? error.details : [];
  return frame(streamId, FrameType.Response, 0, (writer) => {
    writer.uint32(10).fork().uint32(8).int32(code).uint32(18).string(message);
    for (const { typeUrl, value } of details) {
      writer.uint32(26).fork().uint32(10).string(typeUrl).uint32(18).bytes(value).join();
    }
    writer.join();
  });
}

/** A data frame with one message of a stream. Throws when oversize. */
export function encodeData<T>(streamId: number, type: MessageType<T>, message: T): Uint8Array {
  return frame(streamId, FrameType.Data, 0, (writer) => void type.encode(message, writer));
}

/** The data frame that ends one direction of a stream. */
export function encodeEnd(streamId: number): Uint8Array {
  return frame(streamId, FrameType.Data, FrameFlag.RemoteClosed | FrameFlag.NoData, () => undefined);
}

export function encodeCancel(streamId: number): Uint8Array {
  return frame(streamId, FrameType.Cancel, 0, () => undefined);
}

/** Throws on bytes that are no protobuf. */
export function decodeRequest(body: Uint8Array): RequestMessage {
  let service = '';
  let method = '';
  let payload: Uint8Array = EMPTY;
  let timeoutNano = 0;
  const metadata = new Metadata();
  const reader = new BinaryReader(body);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 10) service = reader.string();
    else if (tag === 18) method = reader.string();
    else if (tag === 26) payload = reader.bytes();
    else if (tag === 32) timeoutNano = Number(reader.int64());
    else if (tag === 42) metadata.append(...decodeKeyValue(reader.bytes()));
    else skip(reader, tag);
  }
  return { service, method, payload, timeoutNano, metadata };
}

/** Throws on bytes that are no protobuf. */
export function decodeResponse(body: Uint8Array): ResponseMessage {
  let status: StatusError | undefined;
  let payload: Uint8Array = EMPTY;
  const reader = new BinaryReader(body);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 10) status = decodeStatus(reader.bytes());
    else if (tag === 18) payload = reader.bytes();
    else skip(reader, tag);
  }
  return { status, payload };
}

function decodeStatus(body: Uint8Array): StatusError | undefined {
  let code = 0;
  let message = '';
  const details: StatusDetail[] = [];
  const reader = new BinaryReader(body);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 8) code = reader.int32();
    else if (tag === 18) message = reader.string();
    else if (tag === 26) details.push(decodeDetail(reader.bytes()));
    else skip(reader, tag);
  }
  return code === Code.OK ? undefined : new StatusError(code, message, { details });
}

function decodeDetail(body: Uint8Array): StatusDetail {
  let typeUrl = '';
  let value: Uint8Array = EMPTY;
  const reader = new BinaryReader(body);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 10) typeUrl = reader.string();
    else if (tag === 18) value = reader.bytes().slice();
    else skip(reader, tag);
  }
  return { typeUrl, value };
}

function decodeKeyValue(body: Uint8Array): [key: string, value: string] {
  let key = '';
  let value = '';
  const reader = new BinaryReader(body);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 10) key = reader.string();
    else if (tag === 18) value = reader.string();
    else skip(reader, tag);
  }
  return [key, value];
}

function skip(reader: BinaryReader, tag: number): void {
  const wireType = tag & 7;
  if (tag >>> 3 === 0 || wireType > 5) throw new RangeError('illegal tag');
  reader.skip(wireType, tag >>> 3);
}
