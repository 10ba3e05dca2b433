import type { Duplex } from 'node:stream';
import { encodeFrame, FrameFlag, FrameType, MAX_PAYLOAD } from './frame.ts';

export const Setting = { InitialWindowSize: 4, MaxHeaderListSize: 6 } as const;
/** RFC 9113, 7. */
export const ErrorCode = {
  None: 0,
  Protocol: 1,
  FlowControl: 3,
  Refused: 7,
  Cancel: 8,
  Compression: 9,
} as const;
/** What we let the other end send ahead on each stream, and in all. */
export const STREAM_WINDOW = 4 << 20;
export const CONNECTION_WINDOW = 16 << 20;

/** What goes out on one connection: frames of one turn of the event loop are written together. */
export class Outgoing {
  /** RFC 9113, 6.9.2: both windows before anybody says otherwise. */
  static readonly defaultWindow = 65_535;
  /** Bytes of bodies that the other end takes now, on all streams together. */
  window = Outgoing.defaultWindow;
  readonly #socket: Duplex;
  #frames: Buffer[] = [];
  #initialWindow = Outgoing.defaultWindow;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  get initialWindow(): number {
    return this.#initialWindow;
  }

  /** @returns by how much the windows of all streams change */
  changeInitialWindow(window: number): number {
    const change = window - this.#initialWindow;
    this.#initialWindow = window;
    return change;
  }

  frame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    if (this.#frames.length === 0) setImmediate(() => this.#write());
    this.#frames.push(encodeFrame(type, flags, streamId, payload));
  }

  settings(settings: readonly (readonly [id: number, value: number])[]): void {
    const payload = Buffer.alloc(6 * settings.length);
    settings.forEach(([id, value], index) => {
      payload.writeUInt16BE(id, 6 * index);
      payload.writeUInt32BE(value, 6 * index + 2);
    });
    this.frame(FrameType.Settings, 0, 0, payload);
  }

  /** A header block, in as many frames as it needs. */
  headers(streamId: number, block: Buffer, last: boolean): void {
    for (let at = 0; at === 0 || at < block.length; at += MAX_PAYLOAD) {
      const ends = at + MAX_PAYLOAD >= block.length ? FrameFlag.EndHeaders : 0;
      const type = at === 0 ? FrameType.Headers : FrameType.Continuation;
      const flags = ends | (at === 0 && last ? FrameFlag.EndStream : 0);
      this.frame(type, flags, streamId, block.subarray(at, at + MAX_PAYLOAD));
    }
  }

  /** Closes the socket once all is written. */
  end(): void {
    this.#write();
    this.#socket.end();
  }

  #write(): void {
    if (this.#frames.length === 0) return;
    const bytes = this.#frames.length === 1 ? this.#frames[0] : Buffer.concat(this.#frames);
    this.#frames = [];
    if (!this.#socket.writable) return;
    // Who does not read the answers is not read either, or what waits for it would have no bound.
    if (this.#socket.write(bytes) || this.#socket.isPaused()) return;
    this.#socket.pause();
    this.#socket.once('drain', () => this.#socket.resume());
  }
}
