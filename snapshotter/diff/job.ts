import { Code, codeOf, hasErrno, messageOf, StasisError } from '../../src/errors.ts';
import type { Known } from './compare.ts';
import type { Compression } from './compression.ts';

/** Work for a thread: it reads and writes files one call after another, which would stop all else in stasisd. */
export type Job =
  | {
      readonly kind: 'unpack';
      /** Where the layer's files go: the thread's root meanwhile. */
      readonly folder: string;
      /** Write all that the file system holds in memory before the answer. */
      readonly sync: boolean;
    }
  | {
      readonly kind: 'pack';
      /** The tree before, undefined for none, and the tree whose difference is wanted. */
      readonly left: string | undefined;
      readonly right: string;
      /** What is known of the two beforehand; see compare.ts. */
      readonly known: Known | undefined;
      readonly compression: Compression;
      /** No file is newer than this, seconds since 1970; undefined: no bound. */
      readonly latest: number | undefined;
    };

/** What came of it: of the uncompressed archive, and of the bytes that were handed on. */
export interface JobResult {
  readonly digest: string;
  readonly size: number;
  readonly packedDigest: string;
  readonly packedSize: number;
}

/** To the thread: a job, bytes for it, their end, or leave to send one piece more. */
export type ToThread =
  { readonly job: Job } | { readonly bytes: Uint8Array } | { readonly end: true } | { readonly more: true };

/** From the thread: bytes, leave to send one piece more, something to log, and one of two ends. */
export type FromThread =
  | { readonly bytes: Uint8Array }
  | { readonly more: true }
  | { readonly warning: string }
  | { readonly result: JobResult }
  | { readonly failure: Failure };

/** Pieces that may be under way in each direction. */
export const WINDOW = 8;

/** An error on its way between threads. */
export interface Failure {
  readonly code: Code;
  readonly message: string;
  readonly subject: string | undefined;
  readonly reason: string | undefined;
  readonly remedy: string | undefined;
}

export function toFailure(error: unknown): Failure {
  const plain = { message: messageOf(error), subject: undefined, reason: undefined, remedy: undefined };
  if (error instanceof StasisError) {
    return { ...plain, code: error.code, subject: error.subject, reason: error.reason, remedy: error.remedy };
  }
  if (hasErrno(error, 'ENOSPC') || hasErrno(error, 'EDQUOT')) {
    return {
      ...plain,
      code: Code.ResourceExhausted,
      reason: 'no-room',
      remedy: 'free space, or raise the quota: stasis df shows what takes it',
    };
  }
  if (hasErrno(error, 'EROFS')) return { ...plain, code: Code.FailedPrecondition };
  return { ...plain, code: codeOf(error) === Code.Unknown ? Code.Internal : codeOf(error) };
}

export function fromFailure({ code, message, subject, reason, remedy }: Failure): StasisError {
  return new StasisError(code, message, { subject, reason, remedy });
}
