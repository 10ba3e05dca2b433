import { closeSync, openSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { check, checkInBackground, native } from './libc.ts';

const call = native<[number]>('int syncfs(int fd)');

/**
 * Writes everything that a file system holds in memory alone, pages dirtied through shared mappings included, and
 * returns when it is stored: syncfs(2). Runs on one of libuv's threads.
 * @param path any file or folder on the file system
 * @throws SysError EIO, ENOSPC when something could not be written; ENOENT when there is no such path
 */
export async function syncfs(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await checkInBackground('syncfs', call, [handle.fd], path);
  } finally {
    await handle.close();
  }
}

/** The same on the calling thread, for threads that have nothing else to do. */
export function syncfsNow(path: string): void {
  const fd = openSync(path, 'r');
  try {
    check('syncfs', call(fd), path);
  } finally {
    closeSync(fd);
  }
}
