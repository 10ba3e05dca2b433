import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import test from 'node:test';
import { hasErrno } from '../../../src/errors.ts';
import { native } from '../../../src/sys/libc.ts';
import { wakeFaults } from '../../../src/sys/userfault.ts';

const fails = (errno: string) => (error: unknown) => hasErrno(error, errno);

/** userfaultfd(2), which the C library has no function for. */
const userfaultfd = process.arch === 'x64' ? 323 : 282;
const O_CLOEXEC = 0o2000000;
const UFFD_USER_MODE_ONLY = 1;

test('what is no userfaultfd, or a closed one, cannot be woken', () => {
  const file = openSync('/dev/null', 'r');
  assert.throws(() => wakeFaults(file), fails('ENOTTY'));
  closeSync(file);
  assert.throws(() => wakeFaults(9999), fails('EBADF'));
});

test('a userfaultfd that nobody has begun to use is refused, whatever the kernel calls its last address', (t) => {
  const syscall = native<[number, number]>('long syscall(long number, int flags)');
  const fd = Number(syscall(userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
  if (fd === -1) {
    t.diagnostic('this kernel refuses userfaultfd');
    return;
  }
  assert.throws(() => wakeFaults(fd), fails('EINVAL'));
  closeSync(fd);
});
