// The start of a container that runc or crun has created, without the runtime.
import { constants, openSync, readSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { hasErrno } from '../errors.ts';
import { closeQuietly } from '../sys/descriptor.ts';
import type { RuntimeName } from './types.ts';

// With O_NONBLOCK opening a FIFO cannot block; its folder is the runtime's, in memory.
const { O_RDONLY, O_WRONLY, O_NONBLOCK, O_NOFOLLOW } = constants;

/**
 * Lets the first process of a created container go on, as the runtime's `start` does: the process waits at a FIFO in the
 * runtime's folder. runc's waits for a reader and writes a byte to it, since 1.0; crun's waits for a byte. Then the FIFO is
 * removed, by which both know a running container from a created one. A start of the runtime's own program takes longer
 * than all that the shim does for a `start`. Hooks of the kind poststart, which crun runs here, are left to it.
 * @param folder the runtime's folder for this container
 * @param ended aborted when the process has ended
 * @returns whether the process goes on; otherwise the runtime's own `start` is to do it, or to say what is wrong
 */
export async function directStart(
  runtime: RuntimeName,
  folder: string,
  ended: AbortSignal,
): Promise<boolean> {
  const fifo = join(folder, 'exec.fifo');
  if (ended.aborted || statSync(fifo, { throwIfNoEntry: false })?.isFIFO() !== true) return false;
  const goesOn = runtime === 'crun' ? hasTakenByte(fifo) : await hasWrittenByte(fifo, ended);
  if (goesOn) removeIfThere(fifo);
  return goesOn;
}

/** crun's process has had the FIFO open for reading since it was made: without a reader it is gone. */
function hasTakenByte(fifo: string): boolean {
  let fd = -1;
  try {
    fd = openSync(fifo, O_WRONLY | O_NONBLOCK | O_NOFOLLOW);
    return writeSync(fd, Buffer.alloc(1)) === 1;
  } catch (error) {
    if (hasErrno(error, 'ENXIO') || hasErrno(error, 'EPIPE') || hasErrno(error, 'ENOENT')) return false;
    throw error;
  } finally {
    closeQuietly(fd);
  }
}

/** runc's process opens the FIFO for writing, which waits for a reader. It may not have come there yet. */
async function hasWrittenByte(fifo: string, ended: AbortSignal): Promise<boolean> {
  const fd = openSync(fifo, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  const socket = new Socket({ fd, readable: true, writable: false });
  let onEnd: (() => void) | undefined;
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once('data', () => resolve(true));
      socket.once('error', () => resolve(false));
      socket.once('close', () => resolve(false));
      // It may have written, gone on and ended, all before this thread came to read.
      onEnd = () => resolve(hasByte(fd));
      ended.addEventListener('abort', onEnd, { once: true });
    });
  } finally {
    if (onEnd !== undefined) ended.removeEventListener('abort', onEnd);
    socket.destroy();
  }
}

function hasByte(fd: number): boolean {
  try {
    return readSync(fd, Buffer.alloc(1)) === 1;
  } catch (error) {
    if (hasErrno(error, 'EAGAIN')) return false;
    throw error;
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}
