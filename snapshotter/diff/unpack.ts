import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  type Stats,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { posix } from 'node:path';
import { FailedPrecondition, hasErrno, InvalidArgument, StasisError } from '../../src/errors.ts';
import { readable, toBuffer, type ByteString } from '../../src/sys/bytes.ts';
import { deviceNumber, makeNode, S_IFBLK, S_IFCHR, S_IFIFO, setTimes } from '../../src/sys/inode.ts';
import { setXattr } from '../../src/sys/xattr.ts';
import type { TarEntry } from '../../src/tar/entry.ts';
import type { TarEvent } from '../../src/tar/reader.ts';
import { isFolder, makeFolders, realpath, removeTree, replacing } from './tree.ts';

/** Whiteouts of the OCI image specification, layer.md. */
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

const BEYOND_31_BITS = 2 ** 31;

/** Largest time that fits 63 bits of nanoseconds. */
const MAX_SECONDS = 9_223_372_036;

/**
 * Writes a layer's entries into the folder that is this thread's root (see ThreadRoot), with the results of
 * containerd's own unpacking, pkg/archive/tar.go: whiteouts remove, what is in the way is replaced, folders are
 * merged, and the root itself is left alone.
 */
export class Unpacker {
  readonly #warn: (message: string) => void;
  /** What this layer brought, by the path without symbolic links: an opaque folder keeps only that. */
  readonly #unpacked = new Set<ByteString>();
  /** Folders get their times last, since making files in them moves those. */
  readonly #folders = new Map<ByteString, TarEntry>();
  #parent: { given: ByteString; real: ByteString } | undefined;
  #file: { entry: TarEntry; path: ByteString; fd: number; made: Stats } | undefined;

  constructor(warn: (message: string) => void) {
    this.#warn = warn;
  }

  /** @throws InvalidArgument for what no layer may hold; errors of the file system, which name the entry */
  take(event: TarEvent): void {
    switch (event.kind) {
      case 'entry':
        return this.#named(event.entry, () => this.#begin(event.entry));
      case 'data':
        return this.#write(event.offset, event.bytes);
      case 'done':
        return this.#close();
    }
  }

  /** After the last entry. */
  finish(): void {
    for (const [path, entry] of this.#folders) {
      this.#named(entry, () => {
        try {
          setEntryTimes(entry, path);
        } catch (error) {
          if (!hasErrno(error, 'ENOENT')) throw error; // a later whiteout took it
        }
      });
    }
  }

  /** Whatever happened: closes a file that is not complete. */
  close(): void {
    if (this.#file !== undefined) closeSync(this.#file.fd);
    this.#file = undefined;
  }

  #named(entry: TarEntry, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (error instanceof Error && !(error instanceof StasisError)) {
        error.message = `${readable(entry.name)}: ${error.message}`;
      }
      throw error;
    }
  }

  #begin(entry: TarEntry): void {
    if (entry.name.includes('\0') || entry.linkname.includes('\0'))
      throw invalid(entry, 'has a NUL in a name');
    const path = posix.normalize(`/${entry.name}`).replace(/\/$/, '');
    if (path === '') return;
    const slash = path.lastIndexOf('/');
    const base = path.slice(slash + 1);
    const parent = this.#parentOf(path.slice(0, slash));
    const real = `${parent === '/' ? '' : parent}/${base}`;
    if (base === OPAQUE) return this.#emptyFolder(parent);
    if (base.startsWith(WHITEOUT)) {
      const hidden = base.slice(WHITEOUT.length);
      if (hidden === '' || hidden === '.' || hidden === '..') throw invalid(entry, 'is no whiteout');
      return removeTree(`${parent === '/' ? '' : parent}/${hidden}`);
    }
    this.#make(entry, real);
    this.#unpacked.add(real);
  }

  /** The folder of an entry, without symbolic links; made where the archive has not brought it. */
  #parentOf(given: ByteString): ByteString {
    if (given === '') {
      this.#parent = undefined; // what is done in the root may take the last parent away
      return '/';
    }
    if (this.#parent?.given !== given) {
      let real: ByteString;
      try {
        real = realpath(given);
      } catch (error) {
        if (!hasErrno(error, 'ENOENT')) throw error;
        makeFolders(given);
        real = realpath(given);
      }
      this.#parent = { given, real };
    }
    return this.#parent.real;
  }

  #make(entry: TarEntry, path: ByteString): void {
    const name = toBuffer(path);
    switch (entry.type) {
      case 'file':
        return this.#makeFile(entry, path);
      case 'directory':
        replacing(path, () => mkdirSync(name, entry.mode & 0o777), isFolder);
        this.#folders.set(path, entry);
        return this.#describe(entry, path, lstatSync(name));
      case 'symlink':
        replacing(path, () => symlinkSync(toBuffer(entry.linkname), name));
        break;
      case 'link':
        replacing(path, () => this.#link(entry, name));
        break;
      case 'fifo':
        replacing(path, () => makeNode(path, S_IFIFO | (entry.mode & 0o777), 0n));
        break;
      case 'character':
      case 'block': {
        if (Math.max(entry.major, entry.minor) > 0xffff_ffff)
          throw invalid(entry, 'has no possible device number');
        const type = entry.type === 'block' ? S_IFBLK : S_IFCHR;
        replacing(path, () =>
          makeNode(path, type | (entry.mode & 0o777), deviceNumber(entry.major, entry.minor)),
        );
        break;
      }
    }
    this.#describe(entry, path, lstatSync(name));
    setEntryTimes(entry, path);
  }

  #makeFile(entry: TarEntry, path: ByteString): void {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    let fd = -1;
    replacing(path, () => (fd = openSync(toBuffer(path), flags, entry.mode & 0o777)));
    this.#file = { entry, path, fd, made: fstatSync(fd) };
  }

  #write(offset: number, bytes: Buffer): void {
    const file = this.#file;
    if (file === undefined) return; // a whiteout with content
    this.#named(file.entry, () => {
      for (let at = 0; at < bytes.length;) {
        at += writeSync(file.fd, bytes, at, bytes.length - at, offset + at);
      }
    });
  }

  #close(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    const { entry, path, fd, made } = file;
    this.#named(entry, () => {
      try {
        if (entry.stretches !== undefined) ftruncateSync(fd, entry.size);
        this.#describe(entry, path, made);
        setEntryTimes(entry, path);
      } finally {
        closeSync(fd);
      }
    });
  }

  /** A hard link to the name itself, though that be a symbolic link: linkat(2) follows none. */
  #link(entry: TarEntry, name: Buffer): void {
    const target = posix.normalize(`/${entry.linkname}`);
    try {
      linkSync(toBuffer(target), name);
    } catch (error) {
      if (hasErrno(error, 'ENOENT'))
        throw invalid(entry, `is a link to ${readable(entry.linkname)}, which is not there`);
      throw error;
    }
  }

  /** Owner, attributes and mode, in this order: a change of owner takes capabilities and set-user-id bits away. */
  #describe(entry: TarEntry, path: ByteString, now: Stats): void {
    const name = toBuffer(path);
    const owned = now.uid === entry.uid && now.gid === entry.gid;
    if (!owned) setOwner(entry, name);
    for (const [attribute, value] of entry.xattrs) this.#setXattr(entry, path, attribute, value, now);
    if (now.isSymbolicLink()) return;
    const mode = owned ? now.mode & 0o7777 : now.mode & 0o1777;
    if (mode !== entry.mode) chmodSync(name, entry.mode);
  }

  #setXattr(entry: TarEntry, path: ByteString, attribute: ByteString, value: Buffer, now: Stats): void {
    const skip = (why: string): void =>
      this.#warn(`${readable(entry.name)}: attribute ${readable(attribute)} is left out: ${why}`);
    // What only the host's administrator may set does not come from an archive.
    if (attribute.startsWith('trusted.')) return skip('archives may not set trusted attributes');
    try {
      setXattr(path, attribute, value);
    } catch (error) {
      const plain = now.isFile() || now.isDirectory();
      if (hasErrno(error, 'EPERM') && attribute.startsWith('user.') && !plain)
        return skip('only files have such');
      if (hasErrno(error, 'ENOTSUP') || hasErrno(error, 'EOPNOTSUPP'))
        return skip('the file system has none such');
      throw error;
    }
  }

  /** Removes from a folder, at every depth, what this layer did not bring. */
  #emptyFolder(folder: ByteString): void {
    for (const name of readdirSync(toBuffer(folder), 'latin1')) {
      const path = `${folder === '/' ? '' : folder}/${name}`;
      if (!this.#unpacked.has(path)) removeTree(path);
      else if (lstatSync(toBuffer(path)).isDirectory()) this.#emptyFolder(path);
    }
  }
}

/** @throws FailedPrecondition where the file system has no room for the number: zfs-fuse takes 31 bits */
function setOwner(entry: TarEntry, name: Buffer): void {
  const { uid, gid } = entry;
  try {
    lchownSync(name, uid, gid);
  } catch (error) {
    if (!hasErrno(error, 'EINVAL') || Math.max(uid, gid) < BEYOND_31_BITS) throw error;
    const which = uid < BEYOND_31_BITS ? `group ${gid}` : `user ${uid}`;
    throw beyond(entry, `belongs to ${which}`, 'owners below 2147483648', error);
  }
}

/** @throws FailedPrecondition where the file system has no room for the time: zfs-fuse takes 31 bits of seconds */
function setEntryTimes(entry: TarEntry, path: ByteString): void {
  const [seconds, nanos] = bounded(entry);
  try {
    setTimes(path, seconds, nanos);
  } catch (error) {
    if (!hasErrno(error, 'EOVERFLOW') || seconds < BEYOND_31_BITS) throw error;
    const time = new Date(seconds * 1000).toISOString();
    throw beyond(entry, `was changed at ${time}`, 'times until 2038-01-19', error);
  }
}

function beyond(entry: TarEntry, is: string, limit: string, cause: unknown): FailedPrecondition {
  return new FailedPrecondition(
    `the layer's entry ${readable(entry.name)} ${is}, which this pool cannot keep: zfs-fuse takes ${limit}`,
    {
      subject: readable(entry.name),
      reason: 'beyond-zfs-fuse',
      remedy: "use OpenZFS's kernel module, or an image without it",
      cause,
    },
  );
}

/** Times that containerd takes; it sets any other to 1970. */
function bounded({ mtime }: TarEntry): [seconds: number, nanos: number] {
  const inside = mtime.seconds >= 0 && mtime.seconds < MAX_SECONDS;
  return inside ? [mtime.seconds, mtime.nanos] : [0, 0];
}

function invalid(entry: TarEntry, why: string): InvalidArgument {
  return new InvalidArgument(`the layer's entry ${readable(entry.name)} ${why}`, {
    subject: readable(entry.name),
  });
}
