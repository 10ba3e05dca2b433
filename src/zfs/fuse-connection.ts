import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno } from '../errors.ts';
import { connectStream } from '../sys/unix-socket.ts';

/** How often a full queue is tried again; nobody tells when there is room. */
const FULL_MS = 2;

/**
 * Connects to zfs-fuse. Its eight workers have a connection each until that is closed, and a few more wait in its queue; where that is
 * full, connect(2) has a program that can wait do so, and one that cannot try again: so this waits.
 * @throws SysError ENOENT, ECONNREFUSED; the signal's reason
 */
export async function connectTo(
  path: string,
  signal: AbortSignal,
): Promise<{ readonly socket: Socket; readonly fd: number }> {
  for (;;) {
    signal.throwIfAborted();
    const fd = connectIdempotent(path);
    if (fd !== undefined) return { socket: new Socket({ fd, readable: true, writable: true, signal }), fd };
    await sleep(FULL_MS, undefined, { signal });
  }
}

/** @returns undefined where the queue is full */
function connectIdempotent(path: string): number | undefined {
  try {
    return connectStream(path);
  } catch (error) {
    if (hasErrno(error, 'EAGAIN')) return undefined;
    throw error;
  }
}
