// The ttrpc frame: ten bytes of header and a body. PROTOCOL.md has the whole table.
//
//   offset  size  field
//   0       4     length of the body, big endian, at most MAX_BODY
//   4       4     stream id, big endian; odd, since only clients open streams
//   8       1     type, see FrameType
//   9       1     flags, see FrameFlag
//   10      …     body

/** Bytes before the body of each frame. */
export const HEADER_LENGTH = 10;

/** Largest body in bytes. A larger one is discarded by its receiver and refused by its sender. */
export const MAX_BODY = 4 << 20;

export const FrameType = {
  Request: 0x01,
  Response: 0x02,
  Data: 0x03,
  /** Ours: the client no longer wants the answer. Peers that do not know it ignore it, as they must. */
  Cancel: 0x80,
} as const;

export const FrameFlag = {
  /** The sender will send no more data on this stream. */
  RemoteClosed: 0x01,
  /** The sender of a request will send data after it. */
  RemoteOpen: 0x02,
  /** A data frame that holds no message, not even an empty one. */
  NoData: 0x04,
} as const;

/** Flags that the protocol leaves free. */
export const FREE_FLAGS = 0xf8;

/** A frame that arrived whole. The body may be a view of the bytes that were pushed: use it or copy it at once. */
export interface MessageFrame {
  readonly kind: 'message';
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
}

/** A frame whose body was longer than MAX_BODY; the body is gone, `length` says how long it claimed to be. */
export interface OversizeFrame {
  readonly kind: 'oversize';
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly length: number;
}

export type Frame = MessageFrame | OversizeFrame;

/** Writes a header to the first ten bytes of `target`, whose body follows from byte 10 on. */
export function writeHeader(
  target: Uint8Array,
  length: number,
  streamId: number,
  type: number,
  flags: number,
) {
  target[0] = length >>> 24;
  target[1] = length >>> 16;
  target[2] = length >>> 8;
  target[3] = length;
  target[4] = streamId >>> 24;
  target[5] = streamId >>> 16;
  target[6] = streamId >>> 8;
  target[7] = streamId;
  target[8] = type;
  target[9] = flags;
}

const FIRST_ALLOCATION = 64 << 10;

/**
 * Turns bytes into frames, in whatever pieces they arrive.
 *
 * INVARIANTS
 * - Never throws: every sequence of bytes is a sequence of frames.
 * - Holds at most MAX_BODY bytes, and at most FIRST_ALLOCATION or four times what has arrived of the body,
 *   whatever a header claims.
 */
export class FrameDecoder {
  readonly #header = new Uint8Array(HEADER_LENGTH);
  #headerFill = 0;
  #inBody = false;
  #length = 0;
  #streamId = 0;
  #type = 0;
  #flags = 0;
  #body: Uint8Array | undefined;
  #received = 0;

  /** Bytes of memory that an unfinished body holds. */
  get held(): number {
    return this.#body?.length ?? 0;
  }

  /** True when the bytes so far ended inside a frame. */
  get midFrame(): boolean {
    return this.#inBody || this.#headerFill > 0;
  }

  push(chunk: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    let offset = 0;
    for (;;) {
      if (!this.#inBody) {
        offset = this.#readHeader(chunk, offset);
        if (!this.#inBody) return frames;
      }
      const taken = Math.min(chunk.length - offset, this.#length - this.#received);
      if (this.#length > MAX_BODY) {
        this.#received += taken;
        offset += taken;
        if (this.#received < this.#length) return frames;
        frames.push(this.#oversize());
      } else if (taken === this.#length) {
        // The usual case: the whole body is in this chunk and needs no copy.
        frames.push(this.#message(chunk.subarray(offset, offset + taken)));
        offset += taken;
      } else {
        if (taken === 0) return frames;
        const body = this.#room(taken);
        body.set(chunk.subarray(offset, offset + taken), this.#received);
        this.#received += taken;
        offset += taken;
        if (this.#received < this.#length) return frames;
        frames.push(this.#message(body));
      }
      this.#inBody = false;
      this.#body = undefined;
    }
  }

  #readHeader(chunk: Uint8Array, start: number): number {
    let header = chunk;
    let at = start;
    let next = start + HEADER_LENGTH;
    if (this.#headerFill > 0 || next > chunk.length) {
      next = Math.min(chunk.length, start + HEADER_LENGTH - this.#headerFill);
      this.#header.set(chunk.subarray(start, next), this.#headerFill);
      this.#headerFill += next - start;
      if (this.#headerFill < HEADER_LENGTH) return next;
      header = this.#header;
      at = 0;
    }
    this.#length = readUint32(header, at);
    this.#streamId = readUint32(header, at + 4);
    this.#type = header[at + 8] ?? 0;
    this.#flags = header[at + 9] ?? 0;
    this.#headerFill = 0;
    this.#received = 0;
    this.#inBody = true;
    return next;
  }

  // Grows with what arrives, not with what the header claims: a header costs its sender nothing.
  #room(more: number): Uint8Array {
    const needed = this.#received + more;
    if (this.#body !== undefined && this.#body.length >= needed) return this.#body;
    const size = Math.min(this.#length, Math.max(FIRST_ALLOCATION, needed, (this.#body?.length ?? 0) * 4));
    const grown = new Uint8Array(size);
    if (this.#body !== undefined) grown.set(this.#body.subarray(0, this.#received));
    return (this.#body = grown);
  }

  #message(body: Uint8Array): MessageFrame {
    return { kind: 'message', streamId: this.#streamId, type: this.#type, flags: this.#flags, body };
  }

  #oversize(): OversizeFrame {
    return {
      kind: 'oversize',
      streamId: this.#streamId,
      type: this.#type,
      flags: this.#flags,
      length: this.#length,
    };
  }
}

function readUint32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] ?? 0) * 0x1000000 +
    (((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0))
  );
}
