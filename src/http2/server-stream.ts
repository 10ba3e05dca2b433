import { FrameType, MAX_PAYLOAD, words } from './frame.ts';
import { ErrorCode, type Outgoing, STREAM_WINDOW } from './outgoing.ts';

/** What happens on a stream after its headers. */
export interface StreamHandler {
  /** A piece of the body. */
  data(bytes: Buffer): void;
  /** The client has sent all of its request. */
  end(): void;
  /** The client cancelled the request, or its connection is gone. */
  cancelled(): void;
}

/** More than this waits for the client's window: whoever writes should wait too. */
const HIGH_WATER = 256 << 10;

/** One request on a server's connection, and its answer. After `finish` nothing is sent any more. */
export class ServerStream {
  handler: StreamHandler | undefined;
  readonly #id: number;
  readonly #outgoing: Outgoing;
  readonly #over: () => void;
  #window: number;
  /** The part of the answer that no window had room for yet. */
  #unsent: Buffer[] = [];
  #waiting = 0;
  /** The trailers, to be sent after it. */
  #trailers: Buffer | undefined;
  #drained: (() => void) | undefined;
  #unacknowledged = 0;
  #received = false;
  #done = false;

  /** @param over called when nothing more is to be sent or received */
  constructor(id: number, outgoing: Outgoing, over: () => void) {
    this.#id = id;
    this.#outgoing = outgoing;
    this.#over = over;
    this.#window = outgoing.initialWindow;
  }

  /** Sends the headers of the answer. */
  respond(block: Buffer): void {
    if (!this.#done) this.#outgoing.headers(this.#id, block, false);
  }

  /** Sends a piece of the body. @returns whether the client takes more now; see `drained` */
  write(bytes: Buffer): boolean {
    if (this.#done) return true;
    this.#unsent.push(bytes);
    this.#waiting += bytes.length;
    this.flush();
    return this.#waiting < HIGH_WATER;
  }

  /** Resolves when the client takes more, or the stream is over. */
  drained(): Promise<void> {
    if (this.#done || this.#waiting < HIGH_WATER) return Promise.resolve();
    return new Promise((resolve) => (this.#drained = resolve));
  }

  /** Ends the answer with its trailers, after what waits. */
  finish(trailers: Buffer): void {
    if (this.#done || this.#trailers !== undefined) return;
    this.#trailers = trailers;
    this.flush();
  }

  /** Sends as much as both windows allow. */
  flush(): void {
    while (this.#waiting > 0 && !this.#done) {
      const [piece] = this.#unsent;
      if (piece === undefined) break;
      const size = Math.min(piece.length, this.#window, this.#outgoing.window, MAX_PAYLOAD);
      if (size <= 0) return;
      this.#window -= size;
      this.#outgoing.window -= size;
      this.#waiting -= size;
      this.#outgoing.frame(FrameType.Data, 0, this.#id, piece.subarray(0, size));
      if (size === piece.length) this.#unsent.shift();
      else this.#unsent[0] = piece.subarray(size);
    }
    if (this.#waiting < HIGH_WATER) this.#wake();
    if (this.#trailers === undefined || this.#done) return;
    this.#outgoing.headers(this.#id, this.#trailers, true);
    // The client may stop sending a request that is answered already (RFC 9113, 8.1).
    if (!this.#received) this.#outgoing.frame(FrameType.RstStream, 0, this.#id, words(ErrorCode.None));
    this.#end();
  }

  /** The client's window is larger now. */
  widen(by: number): void {
    this.#window += by;
    if (by > 0 && this.#waiting > 0) this.flush();
  }

  /** A piece of the request came. @param counted its bytes as windows count them */
  received(bytes: Buffer, counted: number, last: boolean): void {
    if (this.#received || this.#done) return;
    this.#unacknowledged += counted;
    if (!last && this.#unacknowledged >= STREAM_WINDOW / 2) {
      this.#outgoing.frame(FrameType.WindowUpdate, 0, this.#id, words(this.#unacknowledged));
      this.#unacknowledged = 0;
    }
    if (bytes.length > 0) this.handler?.data(bytes);
    if (!last) return;
    this.#received = true;
    this.handler?.end();
  }

  /** The other end reset the stream, or the connection is gone. */
  broken(): void {
    if (this.#done) return;
    this.#done = true;
    this.#wake();
    this.handler?.cancelled();
  }

  #end(): void {
    this.#done = true;
    this.#wake();
    this.#over();
  }

  #wake(): void {
    this.#drained?.();
    this.#drained = undefined;
  }
}
