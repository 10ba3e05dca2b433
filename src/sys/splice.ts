import { constants } from 'node:os';
import { check, lastErrno, native } from './libc.ts';

// splice(2)
const spliceCall = native<[number, null, number, Buffer | null, number, number]>(
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
  return move(from, to, length) ?? 0;
}

/**
 * The same, told apart from the end; one side may be a terminal's master, `/dev/null`, or a file that is not open for appending.
 * @param at position in `to` where that is a file
 * @returns how many, 0 at the end of the input; undefined where none was there or none fits
 * @throws SysError EIO for a terminal whose other side is gone, EPIPE, ENOSPC
 */
export function move(from: number, to: number, length: number, at?: bigint): number | undefined {
  const offset = at === undefined ? null : Buffer.alloc(8);
  if (at !== undefined) offset?.writeBigInt64LE(at);
  const moved = spliceCall(from, null, to, offset, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  // No exception for what happens at the end of every flood.
  if (moved === -1 && lastErrno() === constants.errno.EAGAIN) return undefined;
  return check('splice', Number(moved));
}
