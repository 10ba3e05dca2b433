import { InvalidArgument } from '../errors.ts';
import type { TarTime } from './entry.ts';

/** The prefix of records that hold extended attributes; star's, which all others took over. */
export const XATTR_PREFIX = 'SCHILY.xattr.';

/**
 * Records of a PAX extended header, `<length> <key>=<value>\n` each; the value may hold any bytes. Keys that occur
 * more than once (those of GNU's sparse format 0.0) keep all their values, in order.
 * @throws InvalidArgument for what is not of that form
 */
export function decodePax(bytes: Buffer): Map<string, Buffer[]> {
  const records = new Map<string, Buffer[]>();
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const digits = space < 0 ? '' : bytes.toString('latin1', at, space);
    const end = at + Number(digits);
    if (!/^[1-9]\d{0,9}$/.test(digits) || end > bytes.length || bytes[end - 1] !== 0x0a) throw malformed();
    const equals = bytes.indexOf(0x3d, space);
    if (equals < 0 || equals >= end) throw malformed();
    const key = bytes.toString('latin1', space + 1, equals);
    const value = bytes.subarray(equals + 1, end - 1);
    const known = records.get(key);
    if (known === undefined) records.set(key, [value]);
    else known.push(value);
    at = end;
  }
  return records;
}

/** Records in the order of their keys; empty where there are none. */
export function encodePax(records: ReadonlyMap<string, Buffer>): Buffer {
  const keys = [...records.keys()].sort();
  return Buffer.concat(
    keys.flatMap((key) => {
      const value = records.get(key) ?? Buffer.alloc(0);
      const rest = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), value, Buffer.from('\n')]);
      return [Buffer.from(String(lengthWithDigits(rest.length)), 'latin1'), rest];
    }),
  );
}

/** A record's length counts its own digits. */
function lengthWithDigits(rest: number): number {
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return length;
}

/** @throws InvalidArgument */
export function parsePaxTime(text: string): TarTime {
  const match = /^(-?)(\d+)(?:\.(\d*))?$/.exec(text);
  if (match === null) throw new InvalidArgument(`a tar archive has ${JSON.stringify(text)} for a time`);
  const seconds = Number(match[2]);
  const nanos = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  if (!Number.isSafeInteger(seconds)) throw new InvalidArgument(`a tar archive has the time ${text}`);
  if (match[1] === '') return { seconds, nanos };
  return nanos === 0 ? { seconds: 0 - seconds, nanos: 0 } : { seconds: -seconds - 1, nanos: 1e9 - nanos };
}

export function formatPaxTime({ seconds, nanos }: TarTime): string {
  if (nanos === 0) return String(seconds);
  const negative = seconds < 0;
  const whole = negative ? -seconds - 1 : seconds;
  const fraction = String(negative ? 1e9 - nanos : nanos)
    .padStart(9, '0')
    .replace(/0+$/, '');
  return `${negative ? '-' : ''}${whole}.${fraction}`;
}

function malformed(): InvalidArgument {
  return new InvalidArgument('a tar archive has a malformed extended header');
}
