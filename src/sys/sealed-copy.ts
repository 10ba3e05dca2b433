import { closeSync, readSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { hasErrno } from '../errors.ts';
import { check, native, SysError } from './libc.ts';

// memfd_create(2), fcntl(2): file sealing
const memfdCreate = native<[string, number]>('int memfd_create(const char *name, unsigned int flags)');
const fcntl = native<[number, number, number]>('int fcntl(int fd, int command, int argument)');

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
/** Linux 6.3; said to those that ask for it, as a host may forbid programs in memory. */
const MFD_EXEC = 16;
const F_ADD_SEALS = 1033;
/** F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE. */
const SEALS = 15;

/**
 * A copy of a program in memory that nobody can change any more, to be started as `/proc/self/fd/N`.
 * @returns its descriptor, which is closed in programs that are started
 * @throws SysError, or a file system error of the program; EACCES where the host wants no programs in memory; ENOEXEC for a
 *   script, whose interpreter would look for it when the descriptor is closed
 */
export async function sealedCopy(program: string): Promise<number> {
  const fd = executableMemory('program');
  try {
    await copyFile(program, `/proc/self/fd/${fd}`);
    if (!isElf(fd)) throw new SysError('sealedCopy', constants.errno.ENOEXEC, program);
    check('fcntl', fcntl(fd, F_ADD_SEALS, SEALS), 'F_ADD_SEALS');
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function executableMemory(name: string): number {
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  try {
    return check('memfd_create', memfdCreate(name, flags | MFD_EXEC), name);
  } catch (error) {
    if (!hasErrno(error, 'EINVAL')) throw error;
    return check('memfd_create', memfdCreate(name, flags), name);
  }
}

function isElf(fd: number): boolean {
  const head = Buffer.alloc(4);
  return readSync(fd, head, 0, 4, 0) === 4 && head.toString('latin1') === '\x7fELF';
}
