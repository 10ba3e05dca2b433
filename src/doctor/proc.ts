// The doctor's only way to the kernel's view of processes; tests hand in one of their own.
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs';
import { socketProtocol } from '../sys/socket-protocol.ts';

export interface FileFacts {
  readonly kind: 'file' | 'folder' | 'character-device' | 'block-device' | 'other';
  /** Of a device; 0 for what is none. */
  readonly major: number;
  readonly minor: number;
  readonly size: number;
  /** Names that the file has left. */
  readonly links: number;
}

/**
 * Reads of /proc. They are synchronous: each takes some microseconds, a container has thousands of them, and a promise
 * costs more than such a read. What is gone, as processes end at any time, is empty or undefined.
 */
export interface Proc {
  read(path: string): string;
  link(path: string): string;
  list(path: string): string[];
  /** Follows links, also those of /proc/PID/fd to files that have no name any more. */
  stat(path: string): FileFacts | undefined;
  /**
   * Of a link in /proc/PID/fd: its target, and the id of the mount that the file was opened through. Both of one file, which
   * two reads are not where a process opens and closes the same number all the time, as a shell's redirections do.
   */
  opened(path: string): { target: string; mount: string } | undefined;
  /** So many bytes of a process's memory; undefined where there are none at the address. */
  memory(pid: number, address: bigint, bytes: number): Buffer | undefined;
  /** See sys/socket-protocol.ts. */
  socketProtocol(path: string): string | undefined;
}

export const kernelProc: Proc = {
  read: (path) => orElse(() => readFileSync(path, 'latin1'), ''),
  link: (path) => orElse(() => readlinkSync(path), ''),
  list: (path) => orElse(() => readdirSync(path), []),
  stat: (path) =>
    orElse(() => {
      const found = statSync(path);
      const device = BigInt(found.rdev);
      return {
        kind: found.isFile()
          ? 'file'
          : found.isDirectory()
            ? 'folder'
            : found.isCharacterDevice()
              ? 'character-device'
              : found.isBlockDevice()
                ? 'block-device'
                : 'other',
        // makedev(3): the major's low 12 bits stand above the minor's low 8.
        major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
        minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
        size: found.size,
        links: found.nlink,
      };
    }, undefined),
  opened: (path) =>
    orElse(() => {
      const fd = openSync(path, O_PATH);
      try {
        const mount = /^mnt_id:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '';
        return { target: readlinkSync(`/proc/self/fd/${fd}`), mount };
      } finally {
        closeSync(fd);
      }
    }, undefined),
  memory: (pid, address, bytes) =>
    orElse(() => {
      const fd = openSync(`/proc/${pid}/mem`, 'r');
      try {
        const buffer = Buffer.alloc(bytes);
        return readSync(fd, buffer, 0, bytes, address) === bytes ? buffer : undefined;
      } finally {
        closeSync(fd);
      }
    }, undefined),
  socketProtocol,
};

/** A descriptor that stands for a file without opening it: open(2). */
const O_PATH = 0o10000000;

function orElse<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise; // ENOENT and ESRCH: it has ended; EACCES: a kernel thread's
  }
}
