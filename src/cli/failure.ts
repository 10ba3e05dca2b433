import { type Code, StasisError } from '../errors.ts';
import type { ErrorInfo } from '../proto/gen/stasis/stasis.ts';

/** One of several things that a call did not do, as stasisd answers it. */
interface Failure {
  /** gRPC status code. */
  readonly code: number;
  readonly message: string;
  readonly info?: ErrorInfo | undefined;
}

/** The error that a single call would have ended with. @param subject what it is about, where the failure does not say */
export function errorOf({ code, message, info }: Failure, subject: string): StasisError {
  return new StasisError(code as Code, message, {
    cause: info?.cause === undefined || info.cause === '' ? undefined : new Error(info.cause),
    subject: info?.subject || subject,
    remedy: info?.remedy || undefined,
    reason: info?.reason || undefined,
  });
}
