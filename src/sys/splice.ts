import { constants } from 'node:os';
import { check, lastErrno, native } from './libc.ts';

// splice(2)
const spliceCall = native<[number, null, number, null, number, number]>(
  'long splice(int from, void *from_offset, int to, void *to_offset, size_t length, unsigned int flags)',
);

const SPLICE_F_MOVE = 1;
const SPLICE_F_NONBLOCK = 2;

/**
 * Moves bytes from one pipe or FIFO to another inside the kernel, page by page, as many as there are and fit.
 * @returns how many; 0 where none was there or none fits, or at the end of the input
 * @throws SysError EINVAL where neither is a pipe, EBADF
 */
export function splice(from: number, to: number, length: number): number {
  const moved = spliceCall(from, null, to, null, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  // No exception for what happens at the end of every flood.
  return moved === -1 && lastErrno() === constants.errno.EAGAIN ? 0 : check('splice', Number(moved));
}
