import { closeSync } from 'node:fs';
import { check, native } from './libc.ts';

// pipe2(2), dup2(2), fcntl(2)
const pipe2 = native<[number[], number]>('int pipe2(_Out_ int *fds, int flags)');
const dup2 = native<[number, number]>('int dup2(int from, int to)');

const fcntl = native<[number, number, number]>('int fcntl(int fd, int command, int argument)');

const O_CLOEXEC = 0o2000000;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const F_SETPIPE_SZ = 1031;

export interface Pipe {
  readonly read: number;
  readonly write: number;
}

/**
 * An anonymous pipe; both ends are closed in programs that are started unless passed on, pipe2(2).
 * @throws SysError EMFILE, ENFILE
 */
export function pipe(): Pipe {
  const fds: number[] = [-1, -1];
  check('pipe2', pipe2(fds, O_CLOEXEC));
  const [read = -1, write = -1] = fds;
  return { read, write };
}

/**
 * Lets a pipe or FIFO hold more than its 64 KiB before a writer has to wait: F_SETPIPE_SZ, fcntl(2). The kernel may
 * refuse (EPERM beyond the user's share, EBUSY); the pipe then stays as it was, which is no error.
 */
export function enlargePipe(fd: number, bytes: number): void {
  fcntl(fd, F_SETPIPE_SZ, bytes);
}

/** Reads and writes of an open file answer EAGAIN instead of waiting, for all who have it open: fcntl(2). @throws SysError */
export function doNotWait(fd: number): void {
  const flags = check('fcntl', fcntl(fd, F_GETFL, 0), 'F_GETFL');
  check('fcntl', fcntl(fd, F_SETFL, flags | O_NONBLOCK), 'F_SETFL');
}

/** A descriptor stays open in the program that takes this one's place, fcntl(2). @throws SysError EBADF */
export function keepOverExec(fd: number): void {
  check('fcntl', fcntl(fd, F_SETFD, 0), 'F_SETFD');
}

/** A descriptor is closed in programs that are started from now on, fcntl(2). @throws SysError EBADF */
export function closeOverExec(fd: number): void {
  check('fcntl', fcntl(fd, F_SETFD, FD_CLOEXEC), 'F_SETFD');
}

/**
 * Makes `to` another name of `from`, closing what it was, dup2(2).
 * @throws SysError EBADF
 */
export function replaceDescriptor(to: number, from: number): void {
  check('dup2', dup2(from, to), `${from} ${to}`);
}

/** Closes a descriptor that may be closed already. Never blocks for pipes, FIFOs and terminals. */
export function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // Whatever it was, we do not hold it any more.
  }
}
