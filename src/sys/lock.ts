import { hasErrno } from '../errors.ts';
import { check, native } from './libc.ts';

// flock(2)
const flock = native<[number, number]>('int flock(int fd, int operation)');

const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Takes an exclusive lock on an open file if nobody has it; it is held until the descriptor's last copy is
 * closed, at the latest by the kernel when the process ends, flock(2).
 * @throws SysError EBADF
 */
export function tryLock(fd: number): boolean {
  try {
    check('flock', flock(fd, LOCK_EX | LOCK_NB), String(fd));
    return true;
  } catch (error) {
    if (hasErrno(error, 'EAGAIN')) return false;
    throw error;
  }
}
