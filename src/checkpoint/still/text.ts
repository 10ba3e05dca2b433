// On this thread: the kernel answers from memory, and a hundred trips through libuv's threads take ten times as long.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Something that cannot be judged from outside: it is taken for changed. */
export class Doubt extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'Doubt';
  }
}

/** @throws what Node does, with its `code` */
export function read(path: string): string {
  return readFileSync(path, 'latin1');
}

/** The text of a file that this kernel may not have, or that can only be written; else nothing. */
export function readIdempotent(path: string): string {
  try {
    return read(path);
  } catch {
    return '';
  }
}

/** Names in a folder, sorted. */
export function list(folder: string): string[] {
  return readdirSync(folder).sort();
}

export function link(path: string): string {
  return readlinkSync(path);
}
