import { closeSync } from 'node:fs';
import { check, native } from './libc.ts';

// getrlimit(2), prlimit(2), fcntl(2); struct rlimit { rlim_t soft, hard; }, 64 bits each
const prlimit = native<[number, number, Buffer | null, Buffer | null]>(
  'int prlimit(int pid, int resource, const void *limit, void *before)',
);
const fcntl = native<[number, number, number]>('int fcntl(int fd, int command, int argument)');

const SELF = 0;
const RLIMIT_NOFILE = 7;
const RLIMIT_BYTES = 16;
const F_DUPFD_CLOEXEC = 1030;

/** More descriptors than other threads of this process open at once. */
const MARGIN = 128;

/**
 * Runs `work`, which starts a program, with another soft limit of open files, which the program inherits. Other threads have that limit too
 * meanwhile: see `hasRoomFor`.
 * @throws SysError, or what `work` throws
 */
export function withOpenFiles<T>(limit: number, work: () => T): T {
  const before = Buffer.alloc(RLIMIT_BYTES);
  check('prlimit', prlimit(SELF, RLIMIT_NOFILE, null, before), 'RLIMIT_NOFILE');
  const hard = before.readBigUInt64LE(8);
  const wanted = BigInt(limit) < hard ? BigInt(limit) : hard;
  if (wanted === before.readBigUInt64LE(0)) return work();
  const during = Buffer.from(before);
  during.writeBigUInt64LE(wanted, 0);
  check('prlimit', prlimit(SELF, RLIMIT_NOFILE, during, null), 'RLIMIT_NOFILE');
  try {
    return work();
  } finally {
    check('prlimit', prlimit(SELF, RLIMIT_NOFILE, before, null), 'RLIMIT_NOFILE');
  }
}

/**
 * Whether this process has so few descriptors that nothing in it fails for want of one while `limit` is its limit: new ones have the
 * lowest free number.
 * @throws SysError EMFILE where it has none left as it is
 */
export function hasRoomFor(limit: number): boolean {
  const lowest = check('fcntl', fcntl(0, F_DUPFD_CLOEXEC, 0), 'F_DUPFD_CLOEXEC');
  closeSync(lowest);
  return lowest + MARGIN < limit;
}
