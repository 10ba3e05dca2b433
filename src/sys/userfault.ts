import { hasErrno } from '../errors.ts';
import { check, native } from './libc.ts';

// ioctl_userfaultfd(2)
const ioctl = native<[number, number, Buffer]>('int ioctl(int fd, unsigned long request, void *argument)');

const UFFDIO_WAKE = 0x8010aa02;
/** Below that nobody may map, /proc/sys/vm/mmap_min_addr. */
const FIRST = 0x10000n;
/** Where addresses end: of arm64 and x86-64, and of kernels that were built with fewer bits; more than there is, is refused. */
const ENDS = [2n ** 48n, 2n ** 47n - 0x1000n, 2n ** 42n, 2n ** 39n];

/**
 * Lets every thread that waits for a page of this userfaultfd look again, UFFDIO_WAKE. One whose page is still missing asks
 * its server for it once more.
 * @throws SysError
 */
export function wakeFaults(fd: number): void {
  const range = Buffer.alloc(16);
  for (const end of ENDS) {
    range.writeBigUInt64LE(FIRST, 0);
    range.writeBigUInt64LE(end - FIRST, 8);
    try {
      check('ioctl', ioctl(fd, UFFDIO_WAKE, range), 'UFFDIO_WAKE');
      return;
    } catch (error) {
      if (!hasErrno(error, 'EINVAL') || end === ENDS.at(-1)) throw error;
    }
  }
}
