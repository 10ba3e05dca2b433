import { check, native } from './libc.ts';

// mkfifo(3)
const mkfifo = native<[string, number]>('int mkfifo(const char *path, unsigned int mode)');

/** Makes a named pipe, fifo(7). @throws SysError, as EEXIST */
export function makeFifo(path: string, mode: number): void {
  check('mkfifo', mkfifo(path, mode), path);
}
