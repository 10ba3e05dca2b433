import { closeSync, readSync } from 'node:fs';
import { hasErrno } from '../errors.ts';
import { check, native } from './libc.ts';

// inotify(7)
const init = native<[number]>('int inotify_init1(int flags)');
const add = native<[number, string, number]>(
  'int inotify_add_watch(int fd, const char *path, uint32_t mask)',
);
const remove = native<[number, number]>('int inotify_rm_watch(int fd, int watch)');

const NONBLOCK = 0o4000;
const CLOEXEC = 0o2000000;
/** Bytes before an event's name. */
const HEADER = 16;

/** What can be told of a file or folder, and of what is in a folder; the last three are told unasked. */
export const happened = {
  closedUnwritten: 0x10,
  opened: 0x20,
  movedAway: 0x40,
  movedHere: 0x80,
  deleted: 0x200,
  selfDeleted: 0x400,
  selfMoved: 0x800,
  unmounted: 0x2000,
  /** Events were lost. */
  overflow: 0x4000,
  /** The watch has ended. */
  ignored: 0x8000,
} as const;

export interface FileEvent {
  /** What `watch` answered; -1 for `overflow`. */
  readonly watch: number;
  /** Of `happened`. */
  readonly mask: number;
  /** The name in the folder that is watched; empty where it is about that itself. */
  readonly name: string;
}

/**
 * What the kernel tells of files, in the order in which it happened, opens included, which Node's own `watch` leaves out.
 * Nobody is woken by it: whoever wants to know reads.
 */
export class Inotify {
  readonly #fd = check('inotify_init1', init(NONBLOCK | CLOEXEC));
  readonly #buffer = Buffer.alloc(64 * 1024);

  /** @param mask of `happened`, or-ed. @throws SysError ENOENT, ENOSPC where the user's watches are used up */
  watch(path: string, mask: number): number {
    return check('inotify_add_watch', add(this.#fd, path, mask), path);
  }

  /** Events that came before are still told. */
  unwatch(watch: number): void {
    remove(this.#fd, watch); // it may have ended by itself
  }

  /** What has happened since the last call. Events that equal the one before them are told once. */
  read(): FileEvent[] {
    const events: FileEvent[] = [];
    for (;;) {
      const length = this.#fill();
      if (length === 0) return events;
      for (let at = 0; at < length; at += HEADER + this.#buffer.readUInt32LE(at + 12)) {
        const name = this.#buffer.subarray(at + HEADER, at + HEADER + this.#buffer.readUInt32LE(at + 12));
        events.push({
          watch: this.#buffer.readInt32LE(at),
          mask: this.#buffer.readUInt32LE(at + 4),
          name: name.toString('latin1').replace(/\0+$/, ''),
        });
      }
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  #fill(): number {
    try {
      return readSync(this.#fd, this.#buffer);
    } catch (error) {
      if (hasErrno(error, 'EAGAIN')) return 0;
      throw error;
    }
  }
}
