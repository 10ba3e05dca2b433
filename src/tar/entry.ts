/** What an entry of an archive stands for. */
export type TarType = 'file' | 'link' | 'symlink' | 'character' | 'block' | 'directory' | 'fifo';

/** Seconds since 1970, negative before, and the nanoseconds that follow them. */
export interface TarTime {
  readonly seconds: number;
  readonly nanos: number;
}

/** A stretch of a sparse file that holds data; what lies between stretches are zeros. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
}

/**
 * One entry of an archive. Names of files are bytes and need not be UTF-8, so `name`, `linkname` and the names of
 * attributes are byte strings: one character (0 to 255) for each byte, Node's `latin1`.
 */
export interface TarEntry {
  readonly name: string;
  readonly type: TarType;
  /** Permissions with set-user-id, set-group-id and sticky bit. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of the file once it is unpacked; 0 for all but files. */
  readonly size: number;
  readonly mtime: TarTime;
  /** Where a symbolic link leads, or the name in the archive that a hard link is another name of. */
  readonly linkname: string;
  readonly major: number;
  readonly minor: number;
  /** Extended attributes by name. */
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Where the data of a sparse file lie; absent where all of it is stored. */
  readonly stretches?: readonly Stretch[];
}

export const BLOCK = 512;

/** Bytes that follow `size` bytes of content, up to a whole block. */
export function paddingAfter(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}
