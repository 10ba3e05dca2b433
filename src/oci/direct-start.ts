// The start of a container that runc or crun has created, without the runtime.
import {
  constants,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno } from '../errors.ts';
import { closeQuietly } from '../sys/descriptor.ts';
import type { FirstProcess, OpenFifo, RuntimeName } from './types.ts';

// With O_NONBLOCK opening a FIFO cannot block; its folder is the runtime's, in memory.
const { O_RDONLY, O_WRONLY, O_NONBLOCK, O_NOFOLLOW } = constants;

/** Milliseconds that the process may take to become the container's program, if hooks run before that. */
const EXEC_TIMEOUT_MS = 1000;
const EXEC_POLL_MS = 1;

/** Milliseconds that a process of runc's may take to come to the FIFO. */
const FIFO_TIMEOUT_MS = 30_000;

/**
 * Lets the first process of a created container go on, as the runtime's `start` does: the process waits at a FIFO in the
 * runtime's folder. runc's waits for a reader and writes a byte to it, since 1.0; crun's waits for a byte. Then the FIFO is
 * removed, by which both know a running container from a created one. A start of the runtime's own program takes longer
 * than all that the shim does for a `start`. Containers with hooks of the kind poststart, which crun runs here, or with a handler of
 * crun's that never becomes another program, are left to it.
 *
 * Resolves when the process is the container's program, a second later at most. Until then it is still the runtime's, which no
 * dump can hold: the runtime's own `start` takes its time to end, and nobody sees that.
 * @param folder the runtime's folder for this container
 * @returns whether the process goes on; otherwise the runtime's own `start` is to do it, or to say what is wrong
 */
export async function directStart(
  runtime: RuntimeName,
  folder: string,
  { pid, ended, openFifo = openHere }: FirstProcess,
): Promise<boolean> {
  const fifo = join(folder, 'exec.fifo');
  if (ended.aborted || statSync(fifo, { throwIfNoEntry: false })?.isFIFO() !== true) return false;
  if (!canRun(pid)) return false; // stopped, or frozen: the runtime says what it makes of that
  const goesOn = runtime === 'crun' ? await startOfCrun(fifo, pid) : await startOfRunc(fifo, ended, openFifo);
  if (goesOn) removeIfThere(fifo);
  return goesOn;
}

/** crun's process has had the FIFO open for reading since it was made: without a reader it is gone. */
async function startOfCrun(fifo: string, pid: number): Promise<boolean> {
  const runtime = programOf(pid);
  if (!giveByte(fifo)) return false;
  const end = performance.now() + EXEC_TIMEOUT_MS;
  while (runtime !== undefined && programOf(pid) === runtime && performance.now() < end)
    await sleep(EXEC_POLL_MS);
  return true;
}

function giveByte(fifo: string): boolean {
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

/** The file that a process runs; undefined where it has ended. Its own file system is not asked, which may not answer. */
function programOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return undefined;
  }
}

/** Whether it runs or sleeps: the state in proc(5)'s stat. A frozen one of cgroup v1 sleeps so that nothing wakes it. */
function canRun(pid: number): boolean {
  try {
    return /^[RS]$/.test(
      readFileSync(`/proc/${pid}/stat`, 'latin1')
        .replace(/^.*\) /s, '')
        .charAt(0),
    );
  } catch {
    return false;
  }
}

/**
 * runc's process opens the FIFO for writing, which waits for a reader. It may not have come there yet. Its end of the FIFO is
 * closed when it becomes the container's program.
 */
async function startOfRunc(
  fifo: string,
  ended: AbortSignal,
  openFifo: NonNullable<FirstProcess['openFifo']>,
): Promise<boolean> {
  const opened = await openFifo(fifo, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  const { fd } = opened;
  const socket = new Socket({ fd, readable: true, writable: false });
  let goesOn = false;
  let timer: NodeJS.Timeout | undefined;
  let onEnd: (() => void) | undefined;
  try {
    await new Promise<void>((resolve) => {
      timer = setTimeout(resolve, FIFO_TIMEOUT_MS);
      socket.once('data', () => {
        goesOn = true;
        clearTimeout(timer);
        timer = setTimeout(resolve, EXEC_TIMEOUT_MS);
      });
      socket.once('error', () => resolve());
      socket.once('close', () => resolve());
      onEnd = () => {
        // It may have written, gone on and ended, all before this thread came to read.
        if (!socket.destroyed) goesOn ||= hasByte(fd);
        resolve();
      };
      ended.addEventListener('abort', onEnd, { once: true });
      if (ended.aborted) onEnd(); // while it was opened
    });
    return goesOn;
  } finally {
    clearTimeout(timer);
    if (onEnd !== undefined) ended.removeEventListener('abort', onEnd);
    socket.destroy();
    opened.letGo();
  }
}

async function openHere(path: string, flags: number): Promise<OpenFifo> {
  return { fd: openSync(path, flags), letGo: () => undefined };
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
