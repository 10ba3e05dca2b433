import { closeSync, ftruncateSync, readFileSync, writeSync } from 'node:fs';
import { check, native } from './libc.ts';

// memfd_create(2)
const memfdCreate = native<[string, number]>('int memfd_create(const char *name, unsigned int flags)');
const MFD_CLOEXEC = 1;

/** An empty file in memory alone, of so many bytes; closed in programs that are started. @throws SysError */
export function openMemoryFile(name: string, length: number): number {
  const fd = check('memfd_create', memfdCreate(name, MFD_CLOEXEC), name);
  ftruncateSync(fd, length);
  return fd;
}

/** A file that is in memory alone, for the program that takes this one's place: it stays open there. @throws SysError */
export function writeMemoryFile(name: string, text: string): number {
  const fd = check('memfd_create', memfdCreate(name, 0), name);
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at);
  return fd;
}

/** What is in such a file; it is gone then. */
export function takeMemoryFile(fd: number): string {
  try {
    return readFileSync(`/proc/self/fd/${fd}`, 'utf8');
  } finally {
    closeSync(fd);
  }
}
