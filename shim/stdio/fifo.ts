import { constants, open as openFile } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { closeQuietly, enlargePipe } from '../../src/sys/descriptor.ts';
import { onDisk } from '../../src/sys/thread-pool.ts';
import { PIPE_BYTES } from './pipes.ts';

const open = promisify(openFile);
// With O_NONBLOCK opening a FIFO waits for nobody; the disk may still be waited for that a client names a FIFO on.
const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK } = constants;
/** How `openFifoForWriting` does it. */
export const BOTH_ENDS = O_RDWR | O_NONBLOCK;

/**
 * Opens a FIFO for writing: both of its ends, so that it neither waits for a reader nor ends when one leaves. Another
 * may attach later and gets what is still in it, fifo(7).
 */
export async function openFifoForWriting(path: string): Promise<number> {
  const fd = await open(path, BOTH_ENDS);
  enlargePipe(fd, PIPE_BYTES);
  return fd;
}

/** The same as a stream, for what does not come from a pipe. */
export async function fifoStream(path: string): Promise<Writable> {
  const fd = await openFifoForWriting(path);
  return new Socket({ fd, readable: false, writable: true, ...highWaterMark });
}

/** Not in the types of net.Socket, but handed on to the stream that it is. */
const highWaterMark = { writableHighWaterMark: PIPE_BYTES };

/** A client's input. */
export interface Input {
  readonly stream: Socket;
  /** Lets the end come through. Until then it is held back: the client may leave and another attach. */
  release(): void;
}

/** Opens a FIFO for reading, with a writer of our own that holds back its end. */
export async function openFifoForReading(path: string): Promise<Input> {
  const { fd, end } = await openFifoEnds(path);
  let held = end;
  const stream = new Socket({ fd, readable: true, writable: false });
  const release = (): void => {
    if (held >= 0) closeQuietly(held);
    held = -1;
  };
  stream.once('close', release);
  return { stream, release };
}

/** The same as descriptors: one to read from, and the writer's that holds back the end. Both or none. */
export async function openFifoEnds(path: string): Promise<{ fd: number; end: number }> {
  const fd = await open(path, O_RDONLY | O_NONBLOCK);
  try {
    return { fd, end: await open(path, O_WRONLY | O_NONBLOCK) };
  } catch (error) {
    closeQuietly(fd);
    throw error;
  }
}

/** Opens a file for writing from its beginning. */
export function openForWriting(path: string): Promise<number> {
  return onDisk(() => open(path, O_WRONLY));
}
