// The HTTP/2 frame (RFC 9113, 4.1): nine bytes of header and a payload.
//
//   offset  size  field
//   0       3     length of the payload, big endian
//   3       1     type, see FrameType
//   4       1     flags, see FrameFlag
//   5       4     stream id, big endian, highest bit reserved; 0 is the connection
//   9       …     payload

export const HEADER_LENGTH = 9;

/** Largest payload that a peer may send before it is told otherwise, and we tell nothing else (RFC 9113, 4.2). */
export const MAX_PAYLOAD = 16_384;

export const FrameType = {
  Data: 0,
  Headers: 1,
  Priority: 2,
  RstStream: 3,
  Settings: 4,
  PushPromise: 5,
  Ping: 6,
  GoAway: 7,
  WindowUpdate: 8,
  Continuation: 9,
} as const;

export const FrameFlag = {
  /** SETTINGS and PING: this is the answer. */
  Ack: 0x01,
  /** DATA and HEADERS: the sender's side of the stream ends here. */
  EndStream: 0x01,
  EndHeaders: 0x04,
  Padded: 0x08,
  Priority: 0x20,
} as const;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  /** A view of the bytes that were pushed. */
  readonly payload: Buffer;
}

/** A frame as it goes on the wire. */
export function encodeFrame(type: number, flags: number, streamId: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_LENGTH + payload.length);
  frame.writeUIntBE(payload.length, 0, 3);
  frame[3] = type;
  frame[4] = flags;
  frame.writeUInt32BE(streamId, 5);
  frame.set(payload, HEADER_LENGTH);
  return frame;
}

/** A payload of 32-bit numbers, as WINDOW_UPDATE, RST_STREAM and GOAWAY have. */
export function words(...values: number[]): Buffer {
  const payload = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => payload.writeUInt32BE(value, 4 * index));
  return payload;
}

/** Turns bytes into frames, in whatever pieces they arrive. Holds less than one frame between two calls. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** @throws Error when a frame is longer than MAX_PAYLOAD: the peer does not speak HTTP/2 */
  push(bytes: Buffer): Frame[] {
    let buffer = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const frames: Frame[] = [];
    while (buffer.length >= HEADER_LENGTH) {
      const length = buffer.readUIntBE(0, 3);
      if (length > MAX_PAYLOAD) throw new Error(`a frame of ${length} bytes is longer than ${MAX_PAYLOAD}`);
      if (buffer.length < HEADER_LENGTH + length) break;
      frames.push({
        type: buffer.readUInt8(3),
        flags: buffer.readUInt8(4),
        streamId: buffer.readUInt32BE(5) & 0x7fffffff,
        payload: buffer.subarray(HEADER_LENGTH, HEADER_LENGTH + length),
      });
      buffer = buffer.subarray(HEADER_LENGTH + length);
    }
    this.#rest = buffer;
    return frames;
  }
}

/**
 * The content of a DATA or HEADERS frame without padding and priority.
 * @throws Error when the padding is longer than the frame
 */
export function content(frame: Frame): Buffer {
  let start = 0;
  let padding = 0;
  if (frame.flags & FrameFlag.Padded) {
    padding = frame.payload[0] ?? 0;
    start = 1;
  }
  if (frame.type === FrameType.Headers && frame.flags & FrameFlag.Priority) start += 5;
  if (start + padding > frame.payload.length) throw new Error('a frame is shorter than its padding');
  return frame.payload.subarray(start, frame.payload.length - padding);
}
