import { constants, open as openFile } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { closeQuietly, enlargePipe } from '../../src/sys/descriptor.ts';

import { PIPE_BYTES } from './pipes.ts';

const open = promisify(openFile);
// With O_NONBLOCK opening a FIFO waits for nobody; the disk may still be waited for that a client names a FIFO on.
const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK } = constants;

/**
 * Opens a FIFO for writing: both of its ends, so that it neither waits for a reader nor ends when one leaves. Another
 * may attach later and gets what is still in it, fifo(7).
 */
export async function openFifoForWriting(path: string): Promise<number> {
  const fd = await open(path, O_RDWR | O_NONBLOCK);
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
  const fd = await open(path, O_RDONLY | O_NONBLOCK);
  let held: number;
  try {
    held = await open(path, O_WRONLY | O_NONBLOCK);
  } catch (error) {
    closeQuietly(fd);
    throw error;
  }
  const stream = new Socket({ fd, readable: true, writable: false });
  const release = (): void => {
    if (held >= 0) closeQuietly(held);
    held = -1;
  };
  stream.once('close', release);
  return { stream, release };
}
