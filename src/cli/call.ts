// One gRPC call: the messages and the status in what its HTTP/2 stream delivers.
import { Code, StasisError } from '../errors.ts';
import { errorTrailer } from '../api/trailer.ts';
import { ErrorInfo } from '../proto/gen/stasis/stasis.ts';
import { type Http2Connection, StreamError, type StreamHandler } from '../http2/client-connection.ts';
import type { Field } from '../http2/hpack.ts';

/** Largest message in bytes, as containerd and stasisd have it. */
const MAX_MESSAGE_BYTES = 16 << 20;
/** Compressed flag and length, before each message. */
const PREFIX_LENGTH = 5;

/** Collects messages until they are asked for; ends with the status of the trailers. */
export class Call implements StreamHandler {
  readonly #explain: (error: Error) => Error;
  readonly #ready: Uint8Array[] = [];
  #pieces: Buffer[] = [];
  /** Bytes in #pieces. */
  #held = 0;
  /** Length of the message that #pieces start with, once its prefix is there. */
  #length: number | undefined;
  #done = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  /** `explain` makes of a broken connection the error that its caller shall see. */
  constructor(explain: (error: Error) => Error) {
    this.#explain = explain;
  }

  /** Sends the request; the function that comes back cancels the call on the server. */
  start(connection: Http2Connection, fields: readonly Field[], message: Uint8Array): () => void {
    const body = Buffer.alloc(PREFIX_LENGTH + message.length);
    body.writeUInt32BE(message.length, 1);
    body.set(message, PREFIX_LENGTH);
    return connection.request(fields, body, this);
  }

  /** The messages as they come. Throws the call's error after the last. */
  async *messages(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const message = this.#ready.shift();
      if (message !== undefined) yield message;
      else if (this.#error !== undefined) throw this.#error;
      else if (this.#done) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** Ends the call with an error, unless it has ended. */
  fail(error: Error): void {
    if (this.#done) return;
    this.#done = true;
    this.#error = error;
    this.#wake?.();
  }

  fields(fields: readonly Field[], last: boolean): void {
    const status = field(fields, ':status');
    if (status !== undefined && status !== '200') {
      this.fail(
        new StasisError(httpCodes[status] ?? Code.Unknown, `the server answered HTTP status ${status}`),
      );
    } else if (last) {
      this.#finish(fields);
    }
  }

  data(bytes: Buffer): void {
    if (this.#done) return;
    this.#pieces.push(bytes);
    this.#held += bytes.length;
    // Pieces are put together once for each message, not once for each piece.
    while (this.#held >= PREFIX_LENGTH + (this.#length ?? 0)) {
      const buffer = Buffer.concat(this.#pieces);
      this.#pieces = [buffer];
      if (this.#length === undefined) {
        const refusal = refusePrefix(buffer);
        if (refusal !== undefined) return this.fail(refusal);
        this.#length = buffer.readUInt32BE(1);
      } else {
        const end = PREFIX_LENGTH + this.#length;
        this.#ready.push(buffer.subarray(PREFIX_LENGTH, end));
        this.#pieces = [buffer.subarray(end)];
        this.#held -= end;
        this.#length = undefined;
      }
    }
    this.#wake?.();
  }

  end(): void {
    this.fail(new StasisError(Code.Internal, 'the server ended the call without a status'));
  }

  failed(error: StreamError): void {
    const code = error.resetCode === undefined ? undefined : (resetCodes[error.resetCode] ?? Code.Internal);
    this.fail(code === undefined ? this.#explain(error) : new StasisError(code, error.message));
  }

  #finish(trailers: readonly Field[]): void {
    const text = field(trailers, 'grpc-status');
    const status = text === undefined || !/^\d+$/.test(text) ? Code.Unknown : Number(text);
    if (status !== 0) return this.fail(statusError(status as Code, trailers));
    this.#done = true;
    this.#wake?.();
  }
}

function refusePrefix(buffer: Buffer): StasisError | undefined {
  if (buffer[0] !== 0) return new StasisError(Code.Internal, 'a message came compressed, unasked');
  const length = buffer.readUInt32BE(1);
  if (length <= MAX_MESSAGE_BYTES) return undefined;
  const text = `a message of ${length} bytes is longer than ${MAX_MESSAGE_BYTES}`;
  return new StasisError(Code.ResourceExhausted, text);
}

function statusError(code: Code, trailers: readonly Field[]): StasisError {
  const message = percentDecode(field(trailers, 'grpc-message') ?? '');
  const encoded = field(trailers, errorTrailer);
  const info = encoded === undefined ? undefined : decodeInfo(Buffer.from(encoded, 'base64'));
  return new StasisError(code, message === '' ? `stasisd answered with gRPC status ${code}` : message, {
    cause: info?.cause || undefined,
    subject: info?.subject || undefined,
    remedy: info?.remedy || undefined,
    reason: info?.reason || undefined,
  });
}

/** A trailer that cannot be read costs the remedy, not the error. */
function decodeInfo(bytes: Buffer): ErrorInfo | undefined {
  try {
    return ErrorInfo.decode(bytes);
  } catch {
    return undefined;
  }
}

function field(fields: readonly Field[], name: string): string | undefined {
  return fields.find(([key]) => key === name)?.[1];
}

/** Status-Message: percent-encoded UTF-8; what is not valid stays as it is. */
function percentDecode(text: string): string {
  const bytes = text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(parseInt(hex, 16)),
  );
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** HTTP statuses of something that is no gRPC server, or of a proxy (gRPC: http-grpc-status-mapping). */
const httpCodes: Record<string, Code> = {
  400: Code.Internal,
  401: Code.PermissionDenied,
  403: Code.PermissionDenied,
  404: Code.Unimplemented,
  429: Code.Unavailable,
  502: Code.Unavailable,
  503: Code.Unavailable,
  504: Code.Unavailable,
};

/** RST_STREAM codes that say more than "internal" (gRPC over HTTP/2: errors). */
const resetCodes: Record<number, Code> = {
  7: Code.Unavailable,
  8: Code.Cancelled,
  11: Code.ResourceExhausted,
  12: Code.PermissionDenied,
};
