import { InvalidArgument } from '../errors.ts';

/**
 * Where each field of a header block lies: POSIX.1-1988 (ustar), and GNU's use of its last part.
 *
 * | offset | bytes | field                | offset | bytes | field                       |
 * | ------ | ----- | -------------------- | ------ | ----- | --------------------------- |
 * | 0      | 100   | name                 | 265    | 32    | user name                   |
 * | 100    | 8     | mode                 | 297    | 32    | group name                  |
 * | 108    | 8     | uid                  | 329    | 8     | major number                |
 * | 116    | 8     | gid                  | 337    | 8     | minor number                |
 * | 124    | 12    | size                 | 345    | 155   | prefix of the name (ustar)  |
 * | 136    | 12    | mtime                | 386    | 96    | 4 stretches (GNU sparse)    |
 * | 148    | 8     | checksum             | 482    | 1     | more of them follow         |
 * | 156    | 1     | type                 | 483    | 12    | size unpacked (GNU sparse)  |
 * | 157    | 100   | link name            |        |       |                             |
 * | 257    | 8     | magic and version    |        |       |                             |
 */
export const field = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  linkname: [157, 100],
  magic: [257, 8],
  major: [329, 8],
  minor: [337, 8],
  prefix: [345, 155],
  realSize: [483, 12],
} as const;

export type Field = readonly [offset: number, length: number];

export const TYPE_OFFSET = 156;
export const SPARSE_OFFSET = 386;
export const SPARSE_MORE_OFFSET = 482;

/** Text up to the first NUL, as a byte string. */
export function readText(block: Buffer, [offset, length]: Field): string {
  const end = block.indexOf(0, offset);
  return block.toString('latin1', offset, end < 0 || end > offset + length ? offset + length : end);
}

/**
 * A number: octal digits, or, where the first bit is set, two's complement in the rest (GNU, star).
 * @throws InvalidArgument for anything else, and beyond 2^53
 */
export function readNumber(block: Buffer, [offset, length]: Field): number {
  const first = block[offset] ?? 0;
  if ((first & 0x80) !== 0) return readBinary(block.subarray(offset, offset + length));
  const text = block
    .toString('latin1', offset, offset + length)
    .replace(/^[ \0]+/, '')
    .replace(/[ \0][\s\S]*$/, '');
  if (text === '') return 0;
  if (!/^[0-7]+$/.test(text))
    throw new InvalidArgument(`a tar header has ${JSON.stringify(text)} for a number`);
  return parseInt(text, 8);
}

function readBinary(bytes: Buffer): number {
  const negative = ((bytes[0] ?? 0) & 0x40) !== 0;
  let value = BigInt((bytes[0] ?? 0) & 0x7f);
  for (const byte of bytes.subarray(1)) value = (value << 8n) | BigInt(byte);
  if (negative) value -= 1n << BigInt(bytes.length * 8 - 1);
  const number = Number(value);
  if (!Number.isSafeInteger(number))
    throw new InvalidArgument(`a tar header has the number ${value}, beyond 2^53`);
  return number;
}

/** Writes text, cut where it is too long: what does not fit stands in a PAX record. */
export function writeText(block: Buffer, [offset, length]: Field, text: string): void {
  block.write(text.slice(0, length), offset, 'latin1');
  // Some readers take a file whose cut name ends with a slash for a folder.
  if (text.length > length && text[length - 1] === '/') {
    const kept = text.slice(0, length).replace(/\/+$/, '').length;
    block.fill(0, offset + kept, offset + length);
  }
}

export function fitsOctal([, length]: Field, value: number): boolean {
  return value >= 0 && value < 8 ** (length - 1);
}

/** Writes octal digits and a NUL; 0 for a number that does not fit, which stands in a PAX record. */
export function writeNumber(block: Buffer, at: Field, value: number): void {
  const [offset, length] = at;
  const text = (fitsOctal(at, value) ? value : 0).toString(8).padStart(length - 1, '0');
  block.write(`${text}\0`, offset, 'latin1');
}

/** The sum of all bytes, with the checksum's own field taken as spaces. */
export function checksumOf(block: Buffer): number {
  let sum = 8 * 0x20;
  const [offset, length] = field.checksum;
  for (let at = 0; at < block.length; at++) if (at < offset || at >= offset + length) sum += block[at] ?? 0;
  return sum;
}

/** Some old archives hold the sum of signed bytes. */
export function signedChecksumOf(block: Buffer): number {
  let sum = 8 * 0x20;
  const [offset, length] = field.checksum;
  for (let at = 0; at < block.length; at++) {
    if (at < offset || at >= offset + length) sum += block.readInt8(at);
  }
  return sum;
}
