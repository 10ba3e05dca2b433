import { closeSync, constants, openSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { check, native } from './libc.ts';

// unshare(2), chroot(2), fchdir(2), umask(2)
const unshare = native<[number]>('int unshare(int flags)');
const chroot = native<[string]>('int chroot(const char *path)');
const chdir = native<[string]>('int chdir(const char *path)');
const fchdir = native<[number]>('int fchdir(int fd)');
const umask = native<[number]>('uint32_t umask(uint32_t mask)');

const CLONE_FS = 0x200;

/**
 * Gives a worker thread a working folder of its own, to which only calls made on this thread are relative.
 * @throws SysError EPERM ENOENT ENOTDIR; an Error on the main thread
 */
export function enterOwnFolder(folder: string): void {
  if (isMainThread) throw new Error('the main thread must keep its working folder');
  check('unshare', unshare(CLONE_FS));
  check('chdir', chdir(folder), folder);
}

/**
 * Gives a worker thread a root folder of its own. Within it the kernel resolves every name, `..` and symbolic links
 * included, so that a hostile archive cannot reach outside. Only calls made on this thread (Node's synchronous ones)
 * see it: all other threads keep theirs, since unshare(2) with CLONE_FS separates this one from them.
 */
export class ThreadRoot {
  readonly #before: number;

  /** Call once a thread. @throws SysError EPERM; an Error on the main thread, whose root all others began with */
  constructor() {
    if (isMainThread) throw new Error('the main thread must keep its root');
    check('unshare', unshare(CLONE_FS));
    umask(0); // modes are set as they are asked for
    this.#before = openSync('/', constants.O_RDONLY | constants.O_DIRECTORY);
  }

  /** Runs synchronous work with `folder` as the root. @throws SysError ENOENT ENOTDIR */
  enter(folder: string): void {
    check('chroot', chroot(folder), folder);
    check('chdir', chdir('/'), folder);
  }

  /** Back to the root of the process. */
  leave(): void {
    check('fchdir', fchdir(this.#before));
    check('chroot', chroot('.'));
  }

  close(): void {
    closeSync(this.#before);
  }
}
