import { writeSync } from 'node:fs';
import { hasErrno } from '../../src/errors.ts';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { SysError } from '../../src/sys/libc.ts';
import { HEADER_LENGTH, type Connection, type Extension, type Frame } from '../../ttrpc/index.ts';
import { bareFrame, Direct, WHOLE_FRAME } from '../guard/frames.ts';

/** Offset of a frame's stream id, four bytes. */
const STREAM_ID = 4;

/**
 * Answers on the client's own connection what the guard lets this process answer there, and tells the guard so afterwards.
 * What cannot be written whole at once goes through the guard, as all else does.
 */
export class DirectAnswers implements Extension {
  readonly #take: (fd: number) => number;
  readonly #clients = new Map<Connection, number>();

  /** @param take gets one of the guard's descriptors, or throws a SysError */
  constructor(take: (fd: number) => number) {
    this.#take = take;
  }

  receive(connection: Connection, { type, streamId: fd }: Frame): void {
    if (type !== Direct.Client || this.#clients.has(connection)) return;
    let client: number;
    try {
      client = this.#take(fd);
    } catch (error) {
      if (error instanceof SysError) return; // the client has gone
      throw error;
    }
    this.#clients.set(connection, client);
    connection.onClose(() => {
      this.#clients.delete(connection);
      closeQuietly(client);
    });
  }

  answer(connection: Connection, frame: Uint8Array): Uint8Array {
    const client = this.#clients.get(connection);
    if (client === undefined || frame.length > WHOLE_FRAME) return frame;
    try {
      writeSync(client, frame);
    } catch (error) {
      if (hasErrno(error, 'EAGAIN') || hasErrno(error, 'EPIPE')) return frame;
      throw error;
    }
    const streamId = Buffer.from(frame.buffer, frame.byteOffset, HEADER_LENGTH).readUInt32BE(STREAM_ID);
    return bareFrame(streamId, Direct.Answered);
  }
}
