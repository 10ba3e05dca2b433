import { closeSync } from 'node:fs';
import { check, native } from './libc.ts';

// pidfd_open(2), pidfd_getfd(2), kcmp(2): by their numbers, since older C libraries have no functions for them.
const syscall3 = native<[number, number, number, number]>(
  'long syscall(long number, long a, long b, long c)',
);
const syscall5 = native<[number, number, number, number, number, number]>(
  'long syscall(long number, long a, long b, long c, long d, long e)',
);

const PIDFD_OPEN = 434;
const PIDFD_GETFD = 438;
const KCMP = process.arch === 'arm64' ? 272 : 312;
const KCMP_FILE = 0;

/** Refers to a process, whatever becomes of its pid. @throws SysError ESRCH ENOSYS */
export function openPid(pid: number): number {
  return Number(check('pidfd_open', syscall3(PIDFD_OPEN, pid, 0, 0), String(pid)));
}

/**
 * Another name, in this process, of what another process has open; closed in programs that are started.
 * @param pidFd from `openPid`
 * @throws SysError ESRCH, EBADF where it is not open there, EPERM, ENOSYS before Linux 5.6
 */
export function takeDescriptor(pidFd: number, fd: number): number {
  return Number(check('pidfd_getfd', syscall3(PIDFD_GETFD, pidFd, fd, 0), String(fd)));
}

/** Whether a descriptor of ours and one of another process's are the same open file. */
export function isSameFile(own: number, pid: number, fd: number): boolean {
  return Number(syscall5(KCMP, process.pid, pid, KCMP_FILE, own, fd)) === 0;
}

/** Runs `work` with a descriptor that refers to a process. @throws as openPid */
export function withPidFd<T>(pid: number, work: (pidFd: number) => T): T {
  const pidFd = openPid(pid);
  try {
    return work(pidFd);
  } finally {
    closeSync(pidFd);
  }
}
