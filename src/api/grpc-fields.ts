// The header blocks of gRPC's answers (gRPC over HTTP/2, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
import { errorInfo } from './convert.ts';
import { codeOf, messageOf, StasisError } from '../errors.ts';
import { encodeFields, type Field } from '../http2/hpack.ts';
import { ErrorInfo } from '../proto/gen/stasis/stasis.ts';
import { errorTrailer } from './trailer.ts';

const begin: readonly Field[] = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
];

/** Before the first message. */
export const responseFields = encodeFields(begin);
/** After the last. */
export const okFields = encodeFields([['grpc-status', '0']]);

/** An answer that is no gRPC. */
export function httpStatus(status: number): Buffer {
  return encodeFields([[':status', String(status)]]);
}

/**
 * A thrown error as gRPC sends it: status, message, and for our own errors an ErrorInfo trailer.
 * @param alone whether nothing was sent before it
 */
export function errorFields(error: unknown, alone: boolean): Buffer {
  const fields: Field[] = [
    ...(alone ? begin : []),
    ['grpc-status', String(codeOf(error))],
    ['grpc-message', percentEncode(messageOf(error))],
  ];
  if (error instanceof StasisError) {
    const info = ErrorInfo.encode(errorInfo(error)).finish();
    fields.push([errorTrailer, Buffer.from(info).toString('base64')]);
  }
  return encodeFields(fields);
}

const units: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** Milliseconds of a `grpc-timeout` header; undefined where it is none. */
export function timeoutOf(value: string): number | undefined {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(value) ?? [];
  const factor = units[unit ?? ''];
  return digits === undefined || factor === undefined ? undefined : Number(digits) * factor;
}

/** Text metadata, first value of each key, without what belongs to the protocol. */
export function metadataOf(fields: readonly Field[]): Map<string, string> {
  const metadata = new Map<string, string>();
  for (const [name, value] of fields) {
    if (name.startsWith(':') || name.startsWith('grpc-') || name.endsWith('-bin') || own.has(name)) continue;
    if (!metadata.has(name)) metadata.set(name, value);
  }
  return metadata;
}

const own = new Set(['te', 'content-type', 'accept-encoding']);

/** Status-Message: UTF-8 with everything but printable ASCII, and `%`, as `%XX`. */
function percentEncode(text: string): string {
  const bytes = Buffer.from(text, 'utf8').toString('latin1');
  return bytes.replace(
    /[^\x20-\x24\x26-\x7e]/g,
    (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}
