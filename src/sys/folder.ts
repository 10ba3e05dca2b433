import { closeSync, constants, openSync } from 'node:fs';
import { toBuffer, type ByteString } from './bytes.ts';
import { check, native } from './libc.ts';

// getdents64(2)
const getdents64 = native<[number, Buffer, number]>(
  'int64_t getdents64(int fd, _Out_ void *entries, size_t size)',
);

const buffer = Buffer.alloc(256 * 1024);

export interface FolderEntry {
  readonly name: ByteString;
  readonly inode: number;
  /** Undefined where the file system does not say. */
  readonly isFolder: boolean | undefined;
}

const DT_UNKNOWN = 0;
const DT_DIR = 4;

/**
 * What is in a folder, with the inode numbers, sorted by the names' bytes. Node's own call leaves the numbers out, and
 * a stat of each would cost more than all else.
 * @throws SysError, or Node's errors: ENOENT ENOTDIR
 */
export function readFolder(path: ByteString): FolderEntry[] {
  const fd = openSync(toBuffer(path), constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  const entries: FolderEntry[] = [];
  try {
    for (;;) {
      const length = Number(check('getdents64', Number(getdents64(fd, buffer, buffer.length)), path));
      if (length === 0) break;
      for (let at = 0; at < length; at += buffer.readUInt16LE(at + 16)) {
        const name = buffer.toString('latin1', at + 19, buffer.indexOf(0, at + 19));
        if (name === '.' || name === '..') continue;
        const type = buffer[at + 18] ?? DT_UNKNOWN;
        const isFolder = type === DT_UNKNOWN ? undefined : type === DT_DIR;
        entries.push({ name, inode: Number(buffer.readBigUInt64LE(at)), isFolder });
      }
    }
  } finally {
    closeSync(fd);
  }
  return entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}
