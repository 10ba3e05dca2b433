import { check, native } from './libc.ts';

// ioctl(2), pipe(7)
const ioctl = native<[number, number, Buffer]>('int ioctl(int fd, unsigned long request, void *argument)');

const FIONREAD = 0x541b;

/** How many bytes wait in a pipe: FIONREAD. @throws SysError */
export function bytesWaiting(fd: number): number {
  const count = Buffer.alloc(4);
  check('ioctl', ioctl(fd, FIONREAD, count), 'FIONREAD');
  return count.readInt32LE(0);
}
