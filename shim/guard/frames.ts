// The few things of ttrpc that the guard knows: ttrpc/PROTOCOL.md.
import { FrameType, HEADER_LENGTH, writeHeader, type MessageFrame } from '../../ttrpc/frame.ts';
import { AGAIN } from './messages.ts';

/**
 * What guard and worker have agreed on beyond ttrpc, on a client's connection. A side that does not know of it ignores it, as ttrpc has it.
 *
 * - The guard's first frame says which of its descriptors is the client's own connection; the number stands in place of the stream id.
 * - The one after it says where the worker is to note what it has answered: see notes.ts.
 * - A request with the flag may be answered there by the worker, which notes that it has, or tells the guard so where it knows of no note:
 *   one way through the guard less.
 */
export const Direct = {
  /** Type of the guard's first frame. */
  Client: 0x81,
  /** Type of the frame by which the worker says that it has answered that stream itself. */
  Answered: 0x82,
  /** Type of the guard's second frame. */
  Note: 0x83,
  /** Flag of a request. */
  Allowed: 0x80,
} as const;

/**
 * A frame up to this length is written whole or not at all, as the kernel has it in one piece (unix_stream_sendmsg): two processes can
 * write to one connection without a frame of one in the midst of the other's. A longer one can be cut where the client does not read.
 */
export const WHOLE_FRAME = 4096;

/** Where a frame's flags stand. */
const FLAGS_OFFSET = 9;

/** Fields of a Request and a Response, by number and wire type 2 (length-delimited). */
const SERVICE = (1 << 3) | 2;
const METHOD = (2 << 3) | 2;
const PAYLOAD = (3 << 3) | 2;
const METADATA = (5 << 3) | 2;
const STATUS = (1 << 3) | 2;
const STATUS_CODE = 1 << 3;
const STATUS_MESSAGE = (2 << 3) | 2;
const KEY = (1 << 3) | 2;
const VALUE = (2 << 3) | 2;

/** A frame as it goes over the wire. */
export function bytesOf({ streamId, type, flags, body }: MessageFrame): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_LENGTH + body.length);
  writeHeader(bytes, body.length, streamId, type, flags);
  bytes.set(body, HEADER_LENGTH);
  return bytes;
}

/** A frame without a body. */
export function bareFrame(streamId: number, type: number): Buffer {
  return bytesOf({ kind: 'message', streamId, type, flags: 0, body: new Uint8Array() });
}

/** @param bytes of a frame, which are changed */
export function setFlags(bytes: Buffer, flags: number): void {
  bytes[FLAGS_OFFSET] = flags;
}

/** Whom a request is for; empty where its body is none. */
export function targetOf(body: Uint8Array): { readonly service: string; readonly method: string } {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
  let [service, method] = ['', ''];
  for (let at = 0; at < body.length;) {
    const tag = body[at++] ?? 0;
    const [value, next] = readVarint(body, at);
    at = next;
    if ((tag & 7) !== 2) continue; // a number
    if (tag === SERVICE) service = bytes.toString('utf8', at, at + value);
    else if (tag === METHOD) method = bytes.toString('utf8', at, at + value);
    at += value;
  }
  return { service, method };
}

/** A request's own message, a view of its body; empty where it has none. */
export function payloadOf(body: Uint8Array): Buffer {
  for (let at = 0; at < body.length;) {
    const tag = body[at++] ?? 0;
    const [value, next] = readVarint(body, at);
    if (tag === PAYLOAD) return Buffer.from(body.subarray(next, next + value));
    at = (tag & 7) === 2 ? next + value : next;
  }
  return Buffer.alloc(0);
}

/** The same request, marked as one that was given to a worker before: a field that repeats may come at the end. */
export function marked(frame: MessageFrame): MessageFrame {
  const entry = Buffer.concat([text(KEY, AGAIN), text(VALUE, '1')]);
  const mark = Buffer.concat([Buffer.from([METADATA]), varint(entry.length), entry]);
  return { ...frame, body: Buffer.concat([frame.body, mark]) };
}

/** A request without a message. */
export function requestFrame(streamId: number, service: string, method: string): Buffer {
  const body = Buffer.concat([text(SERVICE, service), text(METHOD, method)]);
  return bytesOf({ kind: 'message', streamId, type: FrameType.Request, flags: 0, body });
}

/** A Response that says nothing but why there is no answer. */
export function statusFrame(streamId: number, code: number, message: string): Buffer {
  const status = Buffer.concat([Buffer.from([STATUS_CODE, code]), text(STATUS_MESSAGE, message)]);
  const body = Buffer.concat([Buffer.from([STATUS]), varint(status.length), status]);
  return bytesOf({ kind: 'message', streamId, type: FrameType.Response, flags: 0, body });
}

function text(tag: number, value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([tag]), varint(bytes.length), bytes]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return Buffer.from([...bytes, rest]);
    bytes.push((rest & 0x7f) | 0x80);
  }
}

/** Those beyond 2^53 lose digits, which nobody here looks at. @returns the number, and where it ends */
function readVarint(bytes: Uint8Array, start: number): [value: number, next: number] {
  let value = 0;
  let at = start;
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[at++] ?? 0;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return [value, at];
  }
}
