/**
 * Names of files are bytes, and need not be UTF-8. Where that matters they are kept as byte strings: one character (0
 * to 255) for each byte, Node's `latin1`. They compare and sort like the bytes, and are keys of maps.
 */
export type ByteString = string;

/** For Node's file system calls, which take buffers for names. */
export function toBuffer(text: ByteString): Buffer {
  return Buffer.from(text, 'latin1');
}

/** For C functions: with the NUL that ends it. */
export function toCString(text: ByteString): Buffer {
  return Buffer.from(`${text}\0`, 'latin1');
}

/** As people read it: the bytes as UTF-8 where they are that. */
export function readable(text: ByteString): string {
  return Buffer.from(text, 'latin1').toString('utf8');
}
