import { closeSync, ftruncateSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { check, native } from '../../src/sys/libc.ts';

// mmap(2), munmap(2), memcpy(3)
const mmap = native<[null, number, number, number, number, number]>(
  'intptr_t mmap(void *address, size_t length, int protection, int flags, int fd, long offset)',
);
const munmap = native<[number, number]>('int munmap(intptr_t address, size_t length)');
const memcpy = native<[number, Buffer, number]>(
  'intptr_t memcpy(intptr_t to, const void *from, size_t length)',
);

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const PAGE = koffi.sizeof('long') * 512;

/** A file of one page that is written through a shared mapping, as databases do: no write(2) tells of it. */
export class MappedFile {
  readonly #address: number;

  constructor(path: string) {
    const fd = openSync(path, 'w+');
    ftruncateSync(fd, PAGE);
    this.#address = check('mmap', mmap(null, PAGE, PROT_READ_WRITE, MAP_SHARED, fd, 0), path);
    closeSync(fd);
  }

  write(text: string): void {
    const bytes = Buffer.from(text);
    memcpy(this.#address, bytes, bytes.length);
  }

  close(): void {
    check('munmap', munmap(this.#address, PAGE));
  }
}
