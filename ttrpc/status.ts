// How a call ended: the codes of gRPC, and the error that carries one.

/** The codes of gRPC, which ttrpc shares: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md */
export const Code = {
  OK: 0,
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

const HIGHEST_CODE = 16;

/** A google.protobuf.Any that travels with a status. */
export interface StatusDetail {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

export interface StatusErrorOptions extends ErrorOptions {
  details?: readonly StatusDetail[];
}

/** An error with a status code: what a client's call rejects with, and what a handler throws to choose the code. */
export class StatusError extends Error {
  override readonly name = 'StatusError';
  /** One of `Code`; a number that we do not know is kept as it came. */
  readonly code: number;
  readonly details: readonly StatusDetail[];

  constructor(code: number, message: string, options: StatusErrorOptions = {}) {
    super(message, options);
    this.code = code;
    this.details = options.details ?? [];
  }
}

/**
 * The status that stands for whatever was thrown. An Error with a numeric `code` from 1 to 16 keeps its code; so
 * error classes need not know this library. Everything else is Unknown. The message is kept in each case.
 */
export function toStatusError(thrown: unknown): StatusError {
  if (thrown instanceof StatusError) return thrown;
  if (!(thrown instanceof Error)) return new StatusError(Code.Unknown, describe(thrown), { cause: thrown });
  const code = 'code' in thrown && !(thrown instanceof DOMException) ? thrown.code : undefined;
  const known = typeof code === 'number' && Number.isInteger(code) && code > Code.OK && code <= HIGHEST_CODE;
  return new StatusError(known ? code : Code.Unknown, thrown.message, { cause: thrown });
}

/** What calls fail with when their connection is gone; containerd's own code compares this very text. */
export function closedError(cause?: unknown): StatusError {
  return new StatusError(Code.Unavailable, 'ttrpc: closed', cause === undefined ? {} : { cause });
}

function describe(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return 'an error that has no text';
  }
}
