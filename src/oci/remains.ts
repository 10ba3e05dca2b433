// What an ended container leaves that a runtime's `delete` takes away.
import { hasErrno } from '../errors.ts';

/** Whether no process has that number: not even another one, which crun would have to tell from the container's. */
export function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return hasErrno(error, 'ESRCH');
  }
}

/** @throws what `remove` fails with, unless there is nothing */
export function removeIfThere(path: string, remove: (path: string) => void): void {
  try {
    remove(path);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}
