import { toCString, type ByteString } from './bytes.ts';
import { check, native } from './libc.ts';

// mknod(2), utimensat(2), makedev(3)
const mknodCall = native<[Buffer, number, bigint]>(
  'int mknod(const void *path, uint32_t mode, uint64_t device)',
);
const utimensat = native<[number, Buffer, Buffer, number]>(
  'int utimensat(int folder, const void *path, const void *times, int flags)',
);

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;

export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;

/** A device number as the kernel has it, of its major and minor part. */
export function deviceNumber(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return ((high & 0xfffn) << 8n) | ((high & ~0xfffn) << 32n) | (low & 0xffn) | ((low & ~0xffn) << 12n);
}

/** The parts of a device number. */
export function deviceParts(device: bigint): { major: number; minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)),
    minor: Number((device & 0xffn) | ((device >> 12n) & ~0xffn)),
  };
}

/** Makes a FIFO or a device. @param mode its type and permissions @throws SysError EEXIST EPERM */
export function makeNode(path: ByteString, mode: number, device: bigint): void {
  check('mknod', mknodCall(toCString(path), mode, device), path);
}

const times = Buffer.alloc(32);

/**
 * Sets both times of a file, folder or symbolic link, to the nanosecond: JavaScript's own calls stop short of that.
 * @throws SysError ENOENT
 */
export function setTimes(path: ByteString, seconds: number, nanos: number): void {
  for (const at of [0, 16]) {
    times.writeBigInt64LE(BigInt(seconds), at);
    times.writeBigInt64LE(BigInt(nanos), at + 8);
  }
  check('utimensat', utimensat(AT_FDCWD, toCString(path), times, AT_SYMLINK_NOFOLLOW), path);
}
