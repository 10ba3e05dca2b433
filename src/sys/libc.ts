import koffi, { type KoffiFunc } from 'koffi';
import { onDisk } from './thread-pool.ts';

/**
 * The one place that knows koffi. Functions come from the C library that Node itself is linked with, so no
 * library is searched for. Each neighbour file declares the calls of one concern and names their man pages.
 */
const libc = koffi.load(null);

// EWOULDBLOCK is another name of EAGAIN, which Node has for it.
const names = new Map(
  Object.entries(koffi.os.errno)
    .filter(([name]) => name !== 'EWOULDBLOCK')
    .map(([name, number]) => [number, name]),
);

/** A failed system call. `code` is the errno's name, as Node's own file system errors have it. */
export class SysError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, subject?: string) {
    const code = names.get(errno) ?? `errno ${errno}`;
    super(`${syscall}${subject === undefined ? '' : ` ${subject}`}: ${code}`);
    this.name = 'SysError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** A C function by its prototype, called on the calling thread. */
export function native<Arguments extends readonly unknown[]>(
  prototype: string,
): KoffiFunc<(...args: Arguments) => number> {
  return libc.func(prototype);
}

/**
 * Returns the result of a call that reports failure as -1.
 * @throws SysError with the errno that the call just left
 */
export function check(syscall: string, result: number, subject?: string): number {
  if (result === -1) throw new SysError(syscall, koffi.errno(), subject);
  return result;
}

/** What mmap(2) says of a failure, as a pointer. */
const MAP_FAILED = 2n ** 64n - 1n;
// mmap(2)
const mmap = libc.func(
  'void *mmap(void *at, size_t length, int protection, int flags, int fd, long offset)',
) as KoffiFunc<(...args: [null, number, number, number, number, number]) => bigint | null>;
const READ_WRITE = 3;
const MAP_SHARED = 1;

/** A file's first bytes as memory, which all who map it share; it stays for as long as the process. @throws SysError EACCES, ENOMEM */
export function mapShared(fd: number, length: number): ArrayBuffer {
  const at = mmap(null, length, READ_WRITE, MAP_SHARED, fd, 0);
  if (at === null || BigInt.asUintN(64, at) === MAP_FAILED) throw new SysError('mmap', koffi.errno());
  return koffi.view(at, length);
}

/** What the last call on this thread left in errno; means something only if it failed. */
export function lastErrno(): number {
  return koffi.errno();
}

/**
 * Makes a call that may block on one of libuv's threads. errno is a thread's own; koffi brings that thread's along, for as long
 * as its callback runs.
 * @throws SysError
 */
export function checkInBackground<Arguments extends readonly unknown[]>(
  syscall: string,
  call: KoffiFunc<(...args: Arguments) => number>,
  args: Arguments,
  subject?: string,
): Promise<number> {
  return onDisk(
    () =>
      new Promise<number>((resolve, reject) => {
        const done = (error: unknown, value: number): void => {
          if (error !== null && error !== undefined)
            reject(error instanceof Error ? error : new Error(`${syscall} could not be called`));
          else if (value === -1) reject(new SysError(syscall, koffi.errno(), subject));
          else resolve(value);
        };
        (call.async as (...all: unknown[]) => void)(...args, done);
      }),
  );
}

/** A C structure, to be named in prototypes. */
export const struct = koffi.struct;
