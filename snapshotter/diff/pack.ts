import { type BigIntStats, closeSync, lstatSync, openSync, readSync } from 'node:fs';
import { toBuffer, type ByteString } from '../../src/sys/bytes.ts';
import { deviceParts } from '../../src/sys/inode.ts';
import type { TarEntry, TarType } from '../../src/tar/entry.ts';
import { encodeEntry, END_OF_ARCHIVE, padding } from '../../src/tar/writer.ts';
import { attributesOf, type Change, readLink } from './compare.ts';

const WHITEOUT = '.wh.';
const CHUNK_BYTES = 256 * 1024;

/**
 * Writes changes as a layer: an archive as containerd's own differ writes it (pkg/archive/tar.go), with two things
 * more that it reads and does not write, times below a second and attributes beside capabilities.
 */
export class Packer {
  readonly #root: ByteString;
  readonly #latest: number | undefined;
  /** By inode: the name under which a file with several is in the archive. */
  readonly #written = new Map<bigint, ByteString>();
  /** By inode: names of files that are as they were, and are needed if they get another name. */
  readonly #waiting = new Map<bigint, ByteString[]>();
  readonly #folders = new Set<ByteString>();

  /** @param latest seconds since 1970 that no time may exceed */
  constructor(root: ByteString, latest: number | undefined) {
    this.#root = root;
    this.#latest = latest;
  }

  *pack(changes: Iterable<Change>): Generator<Buffer> {
    for (const change of changes) {
      if (change.kind === 'delete') yield* this.#whiteout(change.path.slice(1));
      else yield* this.#change(change.kind, change.path.slice(1), change.stat);
    }
    yield END_OF_ARCHIVE;
  }

  *#whiteout(name: ByteString): Generator<Buffer> {
    const slash = name.lastIndexOf('/') + 1;
    yield* this.#parents(name);
    yield encodeEntry({
      ...blank,
      name: name.slice(0, slash) + WHITEOUT + name.slice(slash),
      type: 'file',
    });
  }

  *#change(kind: 'add' | 'modify' | 'same', name: ByteString, stat: BigIntStats): Generator<Buffer> {
    const type = typeOf(stat);
    if (type === undefined) return; // a socket: it means nothing without its process
    let entry = this.#describe(name, type, stat);
    let others: ByteString[] = [];
    if (type !== 'directory' && stat.nlink > 1n) {
      const source = this.#written.get(stat.ino);
      if (source !== undefined) {
        entry = { ...entry, type: 'link', linkname: source, size: 0 };
      } else if (kind === 'same') {
        this.#waiting.set(stat.ino, [...(this.#waiting.get(stat.ino) ?? []), name]);
        return;
      } else {
        this.#written.set(stat.ino, name);
        others = this.#waiting.get(stat.ino) ?? [];
        this.#waiting.delete(stat.ino);
      }
    } else if (kind === 'same') return;
    yield* this.#entry(entry);
    if (entry.type === 'file' && entry.size > 0) yield* this.#content(name, entry.size);
    for (const other of others)
      yield* this.#entry({ ...entry, name: other, type: 'link', linkname: name, size: 0 });
  }

  *#entry(entry: TarEntry): Generator<Buffer> {
    yield* this.#parents(entry.name.replace(/\/$/, ''));
    if (entry.type === 'directory') this.#folders.add(entry.name.slice(0, -1));
    yield encodeEntry(entry);
  }

  /** Folders that are not in the archive yet, so that they are made as they are where they are missing. */
  *#parents(name: ByteString): Generator<Buffer> {
    const slash = name.lastIndexOf('/');
    if (slash < 0) return;
    const parent = name.slice(0, slash);
    if (this.#folders.has(parent)) return;
    this.#folders.add(parent);
    const stat = lstatSync(toBuffer(`${this.#root}/${parent}`), { bigint: true });
    yield* this.#entry(this.#describe(parent, 'directory', stat));
  }

  #describe(name: ByteString, type: TarType, stat: BigIntStats): TarEntry {
    const path = `${this.#root}/${name}`;
    const isDevice = type === 'character' || type === 'block';
    const seconds = Number(stat.mtimeNs / 1_000_000_000n) - (stat.mtimeNs % 1_000_000_000n < 0n ? 1 : 0);
    const mtime = { seconds, nanos: Number(stat.mtimeNs - BigInt(seconds) * 1_000_000_000n) };
    const late = this.#latest !== undefined && seconds >= this.#latest;
    return {
      name: type === 'directory' ? `${name}/` : name,
      type,
      mode: Number(stat.mode) & 0o7777,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      size: type === 'file' ? Number(stat.size) : 0,
      mtime: late ? { seconds: this.#latest ?? 0, nanos: 0 } : mtime,
      linkname: type === 'symlink' ? readLink(path) : '',
      ...(isDevice ? deviceParts(stat.rdev) : { major: 0, minor: 0 }),
      xattrs: attributesOf(path),
    };
  }

  *#content(name: ByteString, size: number): Generator<Buffer> {
    const fd = openSync(toBuffer(`${this.#root}/${name}`), 'r');
    try {
      for (let left = size; left > 0;) {
        const chunk = Buffer.allocUnsafeSlow(Math.min(left, CHUNK_BYTES));
        const length = readSync(fd, chunk, 0, chunk.length, null);
        if (length === 0) throw new Error(`${name} ended ${left} bytes early`);
        left -= length;
        yield chunk.subarray(0, length);
      }
    } finally {
      closeSync(fd);
    }
    yield padding(size);
  }
}

const blank: Omit<TarEntry, 'name' | 'type'> = {
  mode: 0,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: { seconds: 0, nanos: 0 },
  linkname: '',
  major: 0,
  minor: 0,
  xattrs: new Map(),
};

function typeOf(stat: BigIntStats): TarType | undefined {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'character';
  if (stat.isBlockDevice()) return 'block';
  return stat.isFIFO() ? 'fifo' : undefined;
}
