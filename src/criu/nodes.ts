// Trees of device nodes, folders and links, as a container's /dev is. On this thread: they are on a tmpfs, a container stands
// still meanwhile, and each trip through libuv's threads takes longer than the call.
import {
  chmodSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  opendirSync,
  readlinkSync,
  symlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { check, native } from '../sys/libc.ts';

// mknod(2)
const mknod = native<[string, number, number]>(
  'int mknod(const char *path, unsigned int mode, uint64_t device)',
);

/** One thing in the tree; stat(2) has the meaning of the numbers. */
export interface TreeNode {
  /** Below the tree's root, such as `fd` or `pts`. */
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modifiedMs: number;
  /** Of a device. */
  readonly device?: number;
  /** Of a symbolic link. */
  readonly link?: string;
}

/** More is no /dev any more. */
const MAX_NODES = 64;
const MAX_DEPTH = 2;

const S_IFMT = 0o170000;

/**
 * What is in a folder, parents first, without what is mounted in it.
 * @returns undefined where there is anything but folders, links and devices, or much of it
 */
export function readTree(root: string): TreeNode[] | undefined {
  const { dev } = lstatSync(root);
  const found: TreeNode[] = [];
  const visit = (folder: string, depth: number): boolean => {
    const names = someNames(join(root, folder), MAX_NODES - found.length);
    if (names === undefined || (names.length > 0 && depth > MAX_DEPTH)) return false;
    for (const name of names) {
      const path = join(folder, name);
      const entry = lstatSync(join(root, path));
      if (entry.nlink > 1 && !entry.isDirectory()) return false;
      const common = { path, mode: entry.mode, uid: entry.uid, gid: entry.gid, modifiedMs: entry.mtimeMs };
      if (entry.dev !== dev) {
        // Something is mounted there, and hides whose folder it is.
        if (!entry.isDirectory()) return false;
        found.push({ path, mode: 0o040755, uid: 0, gid: 0, modifiedMs: entry.mtimeMs });
      } else if (entry.isDirectory()) {
        found.push(common);
        if (!visit(path, depth + 1)) return false;
      } else if (entry.isSymbolicLink()) {
        found.push({ ...common, link: readlinkSync(join(root, path)) });
      } else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
        found.push({ ...common, device: entry.rdev });
      } else {
        return false;
      }
    }
    return true;
  };
  return visit('', 1) ? found : undefined;
}

/** Names in a folder; undefined where there are more than that, which are not all read. */
function someNames(folder: string, atMost: number): string[] | undefined {
  const names: string[] = [];
  const directory = opendirSync(folder);
  try {
    for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
      if (names.length === atMost) return undefined;
      names.push(entry.name);
    }
    return names;
  } finally {
    directory.closeSync();
  }
}

/** Makes a tree in an empty folder, owners, modes and times included. @throws SysError */
export function makeTree(root: string, tree: readonly TreeNode[]): void {
  for (const { path, mode, uid, gid, device, link } of tree) {
    // The list comes from a file beside an image.
    if (!/^[^/\0]+(\/[^/\0]+)*$/.test(path) || path.split('/').includes('..')) {
      throw new Error(`${JSON.stringify(path)} is no path in a tree`);
    }
    const place = join(root, path);
    if (link !== undefined) symlinkSync(link, place);
    else if (device !== undefined) check('mknod', mknod(place, mode, device), place);
    else mkdirSync(place);
    lchownSync(place, uid, gid);
    if (link === undefined) chmodSync(place, mode & ~S_IFMT);
  }
  // Last, and children before their parents: what is made in a folder changes its time.
  for (const { path, modifiedMs } of [...tree].reverse()) {
    lutimesSync(join(root, path), modifiedMs / 1000, modifiedMs / 1000);
  }
}
