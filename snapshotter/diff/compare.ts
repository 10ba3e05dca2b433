import { type BigIntStats, closeSync, lstatSync, openSync, readlinkSync, readSync } from 'node:fs';
import { toBuffer, type ByteString } from '../../src/sys/bytes.ts';
import { readFolder, type FolderEntry } from '../../src/sys/folder.ts';
import { readXattrs } from '../../src/sys/xattr.ts';
import { isCarried } from './attributes.ts';

/** What became of one name. `same` is told of names of files that may have got another one. */
export type Change =
  | { readonly kind: 'delete'; readonly path: ByteString }
  | { readonly kind: 'add' | 'modify' | 'same'; readonly path: ByteString; readonly stat: BigIntStats };

/**
 * What is known of two trees with a common origin, by inode number; see ChangedObjects. Undefined where nothing is:
 * all files are then compared, as containerd's walking differ does.
 */
export interface Known {
  readonly objects: ReadonlySet<number>;
  readonly contents: ReadonlySet<number>;
  readonly plain: ReadonlySet<number>;
  readonly anyAttributes: boolean;
}

/**
 * The changes that make the tree at `right` of that at `left`, in the order of their paths: a folder before what is in
 * it, names in the order of their bytes. Neither tree may change meanwhile.
 *
 * Where the trees have a common origin, a name whose inode is not among the changed ones is not looked at: a file
 * changed, got or lost a name only if its inode did, and a folder has the entries that it had unless its inode changed.
 * So the cost is that of reading the folders, and of what changed.
 * @param left undefined: everything is added
 */
export function* compareTrees(
  left: ByteString | undefined,
  right: ByteString,
  known: Known | undefined,
): Generator<Change> {
  yield* new Comparison(left ?? '', right, known).folder('', left !== undefined, false);
}

const SECOND = 1_000_000_000n;

class Comparison {
  readonly #left: ByteString;
  readonly #right: ByteString;
  readonly #known: Known | undefined;

  constructor(left: ByteString, right: ByteString, known: Known | undefined) {
    this.#left = left;
    this.#right = right;
    this.#known = known;
  }

  /**
   * @param inLeft whether the folder is in the left tree too
   * @param unchanged whether it is known to have the same entries there
   */
  *folder(path: ByteString, inLeft: boolean, unchanged: boolean): Generator<Change> {
    const rights = this.#typed(path, readFolder(this.#right + path));
    if (!inLeft) for (const entry of rights) yield* this.#added(path, entry);
    else if (unchanged) for (const entry of rights) yield* this.#both(path, entry, entry);
    else yield* this.#merged(path, readFolder(this.#left + path), rights);
  }

  /**
   * The entries with their types, where those are of use: zfs-fuse does not say them. A folder of ZFS has two links and
   * one more for each folder in it, so that in most not one entry has to be looked at.
   */
  #typed(path: ByteString, entries: FolderEntry[]): FolderEntry[] {
    if (this.#known === undefined || this.#known.anyAttributes) return entries;
    if (entries.every(({ isFolder }) => isFolder !== undefined)) return entries;
    let folders = Number(statOf(this.#right + path).nlink) - 2;
    return entries.map((entry) => {
      const isFolder = folders > 0 && statOf(`${this.#right}${path}/${entry.name}`).isDirectory();
      if (isFolder) folders--;
      return { ...entry, isFolder };
    });
  }

  *#merged(path: ByteString, lefts: FolderEntry[], rights: FolderEntry[]): Generator<Change> {
    let at = 0;
    for (const right of rights) {
      for (let left = lefts[at]; left !== undefined && left.name < right.name; left = lefts[++at]) {
        yield { kind: 'delete', path: `${path}/${left.name}` };
      }
      const left = lefts[at];
      if (left?.name === right.name) {
        at++;
        yield* this.#both(path, left, right);
      } else {
        yield* this.#added(path, right);
      }
    }
    for (const left of lefts.slice(at)) yield { kind: 'delete', path: `${path}/${left.name}` };
  }

  *#added(folder: ByteString, { name }: FolderEntry): Generator<Change> {
    const path = `${folder}/${name}`;
    const stat = statOf(this.#right + path);
    yield { kind: 'add', path, stat };
    if (stat.isDirectory()) yield* this.folder(path, false, false);
  }

  *#both(folder: ByteString, left: FolderEntry, right: FolderEntry): Generator<Change> {
    const path = `${folder}/${right.name}`;
    const known = this.#known;
    const untouched = known !== undefined && left.inode === right.inode && !known.objects.has(right.inode);
    if (untouched && !known.anyAttributes && right.isFolder !== undefined) {
      if (right.isFolder) yield* this.folder(path, true, true);
      return;
    }
    const before = statOf(this.#left + path);
    const after = statOf(this.#right + path);
    const same = this.#isSame(path, before, after);
    if (!same) yield { kind: 'modify', path, stat: after };
    else if (!after.isDirectory() && after.nlink > 1n) yield { kind: 'same', path, stat: after };
    if (after.isDirectory()) yield* this.folder(path, before.isDirectory(), untouched);
  }

  #isSame(path: ByteString, before: BigIntStats, after: BigIntStats): boolean {
    const alike = (['mode', 'uid', 'gid', 'rdev'] as const).every((key) => before[key] === after[key]);
    if (!alike) return false;
    const isFolder = after.isDirectory();
    if (!isFolder && (before.size !== after.size || before.mtimeNs !== after.mtimeNs)) return false;
    const known = before.ino === after.ino ? this.#known : undefined;
    // Only the kernel sets the time of the last change. zfs-fuse keeps no more of it than seconds: that proves nothing.
    if (known !== undefined && before.ctimeNs === after.ctimeNs && after.ctimeNs % SECOND !== 0n) return true;
    const inode = Number(after.ino);
    const rewritten = known === undefined || known.contents.has(inode);
    if ((rewritten || !known.plain.has(inode)) && !this.#hasSameAttributes(path)) return false;
    if (isFolder || !rewritten) return true;
    // Files that have nothing in common have the same time where it was set, to whole seconds mostly.
    if (this.#known === undefined && after.mtimeNs % SECOND !== 0n) return true;
    if (after.isSymbolicLink()) return readLink(this.#left + path) === readLink(this.#right + path);
    return !after.isFile() || haveSameContent(this.#left + path, this.#right + path);
  }

  #hasSameAttributes(path: ByteString): boolean {
    const [had, has] = [attributesOf(this.#left + path), attributesOf(this.#right + path)];
    return had.size === has.size && [...had].every(([name, value]) => has.get(name)?.equals(value) === true);
  }
}

/** The attributes of a file that a layer carries. */
export function attributesOf(path: ByteString): Map<ByteString, Buffer> {
  return new Map([...readXattrs(path)].filter(([name]) => isCarried(name)));
}

export function readLink(path: ByteString): ByteString {
  return readlinkSync(toBuffer(path), 'latin1');
}

function statOf(path: ByteString): BigIntStats {
  return lstatSync(toBuffer(path), { bigint: true });
}

const chunks = [Buffer.alloc(256 * 1024), Buffer.alloc(256 * 1024)] as const;

/** Compares two files of the same size. */
function haveSameContent(left: ByteString, right: ByteString): boolean {
  const fds = [openSync(toBuffer(left), 'r'), openSync(toBuffer(right), 'r')] as const;
  try {
    for (;;) {
      const length = readFully(fds[0], chunks[0]);
      if (readFully(fds[1], chunks[1]) !== length) return false;
      if (!chunks[0].subarray(0, length).equals(chunks[1].subarray(0, length))) return false;
      if (length < chunks[0].length) return true;
    }
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

function readFully(fd: number, buffer: Buffer): number {
  let length = 0;
  while (length < buffer.length) {
    const read = readSync(fd, buffer, length, buffer.length - length, null);
    if (read === 0) break;
    length += read;
  }
  return length;
}
