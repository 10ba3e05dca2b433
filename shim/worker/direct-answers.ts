import { writeSync } from 'node:fs';
import { hasErrno } from '../../src/errors.ts';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { SysError } from '../../src/sys/libc.ts';
import { HEADER_LENGTH, type Connection, type Extension, type Frame } from '../../ttrpc/index.ts';
import { bareFrame, Direct, WHOLE_FRAME } from '../guard/frames.ts';
import { NoteBook } from '../guard/notes.ts';

/** Offset of a frame's stream id, four bytes. */
const STREAM_ID = 4;

/** A client's own connection. */
interface Client {
  readonly fd: number;
  /** Tells the guard that a request is answered; undefined where it looks at no note. */
  note: ((streamId: number) => void) | undefined;
}

/**
 * Answers on the client's own connection what the guard lets this process answer there, and notes that it has, or tells the guard so.
 * What cannot be written whole at once goes through the guard, as all else does.
 */
export class DirectAnswers implements Extension {
  /** The guard keeps requests back, and lets others pass. */
  readonly anyOrder = true;
  readonly #take: (fd: number) => number;
  readonly #noteBook: NoteBook;
  readonly #clients = new Map<Connection, Client>();

  /** @param take gets one of the guard's descriptors, or throws a SysError */
  constructor(take: (fd: number) => number) {
    this.#take = take;
    this.#noteBook = new NoteBook(take);
  }

  receive(connection: Connection, frame: Frame): void {
    try {
      if (frame.type === Direct.Client) this.#meet(connection, frame.streamId);
      else if (frame.type === Direct.Note && frame.kind === 'message') {
        const client = this.#clients.get(connection);
        if (client !== undefined) client.note = this.#noteBook.find(frame.body);
      }
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // the client has gone, or there is no such memory
    }
  }

  #meet(connection: Connection, guardsFd: number): void {
    if (this.#clients.has(connection)) return;
    const fd = this.#take(guardsFd);
    this.#clients.set(connection, { fd, note: undefined });
    connection.onClose(() => {
      this.#clients.delete(connection);
      closeQuietly(fd);
    });
  }

  answer(connection: Connection, frame: Uint8Array): Uint8Array | undefined {
    const client = this.#clients.get(connection);
    if (client === undefined || frame.length > WHOLE_FRAME) return frame;
    try {
      writeSync(client.fd, frame);
    } catch (error) {
      if (hasErrno(error, 'EAGAIN') || hasErrno(error, 'EPIPE')) return frame;
      throw error;
    }
    const streamId = Buffer.from(frame.buffer, frame.byteOffset, HEADER_LENGTH).readUInt32BE(STREAM_ID);
    if (client.note === undefined) return bareFrame(streamId, Direct.Answered);
    client.note(streamId);
    return undefined;
  }
}
