import { check, native } from './libc.ts';

// ioctl_tty(2)
const ioctl = native<[number, number, Buffer]>('int ioctl(int fd, unsigned long request, void *argument)');

const TIOCSWINSZ = 0x5414;

/**
 * Tells a terminal its size in characters; the foreground process group gets SIGWINCH, TIOCSWINSZ in ioctl_tty(2).
 * @throws SysError EBADF, ENOTTY
 */
export function setWindowSize(fd: number, columns: number, rows: number): void {
  const winsize = Buffer.alloc(8);
  winsize.writeUInt16LE(rows, 0);
  winsize.writeUInt16LE(columns, 2);
  check('ioctl', ioctl(fd, TIOCSWINSZ, winsize), 'TIOCSWINSZ');
}
