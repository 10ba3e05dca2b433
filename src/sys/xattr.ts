import { hasErrno } from '../errors.ts';
import { toCString, type ByteString } from './bytes.ts';
import { check, checkInBackground, native } from './libc.ts';

// setxattr(2), getxattr(2), listxattr(2), xattr(7): the calls that do not follow a symbolic link
const lsetxattr = native<[Buffer, Buffer, Buffer, number, number]>(
  'int lsetxattr(const void *path, const void *name, const void *value, size_t size, int flags)',
);
const lgetxattr = native<[Buffer, Buffer, Buffer | null, number]>(
  'int64_t lgetxattr(const void *path, const void *name, _Out_ void *value, size_t size)',
);
const llistxattr = native<[Buffer, Buffer | null, number]>(
  'int64_t llistxattr(const void *path, _Out_ void *list, size_t size)',
);

/** What most files' attributes fit into; larger ones take a second call. */
const scratch = Buffer.alloc(4096);

/**
 * Sets an extended attribute of a file, folder or symbolic link.
 * @throws SysError ENOTSUP where the file system has none of that kind, EPERM, ENOSPC
 */
export function setXattr(path: ByteString, name: ByteString, value: Buffer): void {
  check('lsetxattr', lsetxattr(toCString(path), toCString(name), value, value.length, 0), path);
}

/** Whether a file's file system has extended attributes. Asked on a thread of libuv's. @throws SysError */
export async function hasXattrs(path: ByteString): Promise<boolean> {
  const [file, name] = [toCString(path), toCString('security.capability')];
  try {
    await checkInBackground('lgetxattr', lgetxattr, [file, name, null, 0], path);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENODATA')) return true;
    if (hasErrno(error, 'ENOTSUP') || hasErrno(error, 'EOPNOTSUPP')) return false;
    throw error;
  }
}

/** All extended attributes of a file by name; none where its file system has none. @throws SysError */
export function readXattrs(path: ByteString): Map<ByteString, Buffer> {
  const found = new Map<ByteString, Buffer>();
  const cPath = toCString(path);
  const names = grown((buffer, size) => llistxattr(cPath, buffer, size), 'llistxattr', path);
  if (names === undefined) return found;
  for (const name of names.toString('latin1').split('\0')) {
    if (name === '') continue;
    const cName = toCString(name);
    const value = grown((buffer, size) => lgetxattr(cPath, cName, buffer, size), 'lgetxattr', path);
    if (value !== undefined) found.set(name, Buffer.from(value));
  }
  return found;
}

/** What a call writes into a buffer that is large enough; undefined where there is nothing to be read. */
function grown(
  call: (buffer: Buffer | null, size: number) => number,
  syscall: string,
  path: string,
): Buffer | undefined {
  let buffer = scratch;
  for (;;) {
    try {
      const size = Number(check(syscall, Number(call(buffer, buffer.length)), path));
      return buffer.subarray(0, size);
    } catch (error) {
      if (hasErrno(error, 'ENODATA') || hasErrno(error, 'ENOTSUP') || hasErrno(error, 'EOPNOTSUPP'))
        return undefined;
      if (!hasErrno(error, 'ERANGE')) throw error;
      buffer = Buffer.alloc(buffer.length * 4);
    }
  }
}
