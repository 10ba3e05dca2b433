/**
 * One error class per kind, mapped to gRPC and ttrpc status codes in exactly one table (`code`).
 * Both protocols number their codes alike: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
 */
export const Code = {
  OK: 0,
  Cancelled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

export interface ErrorDetails {
  /** The thing the error is about, as the user named it: a container, checkpoint, dataset, key. */
  subject?: string | undefined;
  /** What to do next, one sentence. */
  remedy?: string | undefined;
  cause?: unknown;
  /** Stable name of this error, such as `checkpoint-exists`; see docs/errors.md. */
  reason?: string | undefined;
}

/** An error with a status code that a client can act on. `message` names the thing and the cause. */
export class StasisError extends Error {
  readonly code: Code;
  readonly subject: string | undefined;
  readonly remedy: string | undefined;
  readonly reason: string | undefined;

  constructor(code: Code, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.subject = details.subject;
    this.remedy = details.remedy;
    this.reason = details.reason;
  }
}

function kind(code: Code) {
  return class extends StasisError {
    constructor(message: string, details: ErrorDetails = {}) {
      super(code, message, details);
    }
  };
}

export class InvalidArgument extends kind(Code.InvalidArgument) {}
export class NotFound extends kind(Code.NotFound) {}
export class AlreadyExists extends kind(Code.AlreadyExists) {}
export class FailedPrecondition extends kind(Code.FailedPrecondition) {}
export class ResourceExhausted extends kind(Code.ResourceExhausted) {}
export class PermissionDenied extends kind(Code.PermissionDenied) {}
export class Unavailable extends kind(Code.Unavailable) {}
export class Unimplemented extends kind(Code.Unimplemented) {}
export class Aborted extends kind(Code.Aborted) {}
export class Cancelled extends kind(Code.Cancelled) {}
export class DeadlineExceeded extends kind(Code.DeadlineExceeded) {}
export class Internal extends kind(Code.Internal) {}

/** The status code of anything thrown; Unknown for what carries none. */
export function codeOf(error: unknown): Code {
  if (typeof error === 'object' && error !== null && 'code' in error) {
    const code = error.code;
    if (typeof code === 'number' && code >= 0 && code <= 16) return code as Code;
  }
  return Code.Unknown;
}

/**
 * An error's details by their names rather than its class: a part of a program that is bundled by itself has classes of its
 * own.
 */
export function detailsOf(error: unknown): ErrorDetails | undefined {
  return error instanceof Error && 'reason' in error && 'remedy' in error && 'subject' in error
    ? (error as ErrorDetails)
    : undefined;
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether a file system call failed with the given errno name, e.g. `ENOENT`. */
export function hasErrno(error: unknown, name: string): boolean {
  return error instanceof Error && 'code' in error && error.code === name;
}
