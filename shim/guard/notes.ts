// Memory that guard and worker share: the worker notes there which request it has answered itself, which wakes nobody.
import { closeSync } from 'node:fs';
import { mapShared } from '../../src/sys/libc.ts';
import { openMemoryFile } from '../../src/sys/memory-file.ts';
import { bytesOf, Direct } from './frames.ts';

/** One for each connection; those beyond do without. */
const NOTES = 4096;
const NOTE_BYTES = 4;
const BODY_BYTES = 8;

/** Where a worker notes the stream that it has answered last of one connection's. */
export interface Note {
  /** 0 where it has answered none. */
  readonly last: number;
  /** Tells a worker where it is. */
  readonly frame: Buffer;
  /** The connection is no more. */
  close(): void;
}

/**
 * The guard's side.
 *
 * INVARIANTS
 * - A note is used again after all others: a worker that is late with one cannot be taken for having answered another connection's request.
 */
export class Notes {
  /** Of the memory: a program that takes this one's place has it too. */
  readonly fd: number;
  readonly #notes: Uint32Array<ArrayBuffer>;
  readonly #used = new Set<number>();
  #last = -1;

  /** @param fd what the program before this one had @throws SysError */
  constructor(fd = openMemoryFile('guard-notes', NOTES * NOTE_BYTES)) {
    this.fd = fd;
    this.#notes = notesIn(fd);
  }

  /** @returns undefined where all are used */
  open(): Note | undefined {
    if (this.#used.size >= NOTES) return undefined;
    do this.#last = (this.#last + 1) % NOTES;
    while (this.#used.has(this.#last));
    const at = this.#last;
    this.#used.add(at);
    Atomics.store(this.#notes, at, 0);
    return new OwnNote(this.#notes, this.fd, at, this.#used);
  }
}

/** As small as can be, as it lives as long as its connection. */
class OwnNote implements Note {
  readonly #notes: Uint32Array<ArrayBuffer>;
  readonly #fd: number;
  readonly #at: number;
  readonly #used: Set<number>;

  constructor(notes: Uint32Array<ArrayBuffer>, fd: number, at: number, used: Set<number>) {
    this.#notes = notes;
    this.#fd = fd;
    this.#at = at;
    this.#used = used;
  }

  get last(): number {
    return Atomics.load(this.#notes, this.#at);
  }

  /** Made when it is asked for: kept, it would keep the whole of Node's pool that it is cut out of. */
  get frame(): Buffer {
    const body = Buffer.alloc(BODY_BYTES);
    body.writeUInt32BE(this.#fd, 0);
    body.writeUInt32BE(this.#at, NOTE_BYTES);
    return bytesOf({ kind: 'message', streamId: 0, type: Direct.Note, flags: 0, body });
  }

  close(): void {
    this.#used.delete(this.#at);
  }
}

/** The worker's side. */
export class NoteBook {
  readonly #take: (fd: number) => number;
  readonly #known = new Map<number, Uint32Array<ArrayBuffer>>();

  /** @param take gets one of the guard's descriptors, or throws a SysError */
  constructor(take: (fd: number) => number) {
    this.#take = take;
  }

  /** @param body of the frame that says where the note is @returns what writes it @throws SysError */
  find(body: Uint8Array): (streamId: number) => void {
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
    const at = bytes.readUInt32BE(NOTE_BYTES);
    const notes = this.#notesOf(bytes.readUInt32BE(0));
    return (streamId) => void Atomics.store(notes, at, streamId);
  }

  #notesOf(fd: number): Uint32Array<ArrayBuffer> {
    const known = this.#known.get(fd);
    if (known !== undefined) return known;
    const own = this.#take(fd);
    try {
      const notes = notesIn(own);
      this.#known.set(fd, notes);
      return notes;
    } finally {
      closeSync(own); // the memory stays
    }
  }
}

function notesIn(fd: number): Uint32Array<ArrayBuffer> {
  return new Uint32Array(mapShared(fd, NOTES * NOTE_BYTES));
}
