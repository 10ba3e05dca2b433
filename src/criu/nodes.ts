// Trees of device nodes, folders and links, as a container's /dev is.
import { chmod, lchown, lstat, lutimes, mkdir, readdir, readlink, symlink } from 'node:fs/promises';
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
export async function readTree(root: string): Promise<TreeNode[] | undefined> {
  const { dev } = await lstat(root);
  const found: TreeNode[] = [];
  const visit = async (folder: string, depth: number): Promise<boolean> => {
    const names = await readdir(join(root, folder));
    if (found.length + names.length > MAX_NODES || (names.length > 0 && depth > MAX_DEPTH)) return false;
    for (const name of names) {
      const path = join(folder, name);
      const entry = await lstat(join(root, path));
      if (entry.nlink > 1 && !entry.isDirectory()) return false;
      const common = { path, mode: entry.mode, uid: entry.uid, gid: entry.gid, modifiedMs: entry.mtimeMs };
      if (entry.dev !== dev) {
        // Something is mounted there, and hides whose folder it is.
        if (!entry.isDirectory()) return false;
        found.push({ path, mode: 0o040755, uid: 0, gid: 0, modifiedMs: entry.mtimeMs });
      } else if (entry.isDirectory()) {
        found.push(common);
        if (!(await visit(path, depth + 1))) return false;
      } else if (entry.isSymbolicLink()) {
        found.push({ ...common, link: await readlink(join(root, path)) });
      } else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
        found.push({ ...common, device: entry.rdev });
      } else {
        return false;
      }
    }
    return true;
  };
  return (await visit('', 1)) ? found : undefined;
}

/** Makes a tree in an empty folder, owners, modes and times included. @throws SysError */
export async function makeTree(root: string, tree: readonly TreeNode[]): Promise<void> {
  for (const { path, mode, uid, gid, device, link } of tree) {
    // The list comes from a file beside an image.
    if (!/^[^/\0]+(\/[^/\0]+)*$/.test(path) || path.split('/').includes('..')) {
      throw new Error(`${JSON.stringify(path)} is no path in a tree`);
    }
    const place = join(root, path);
    if (link !== undefined) await symlink(link, place);
    else if (device !== undefined) check('mknod', mknod(place, mode, device), place);
    else await mkdir(place);
    await lchown(place, uid, gid);
    if (link === undefined) await chmod(place, mode & ~S_IFMT);
  }
  // Last, and children before their parents: what is made in a folder changes its time.
  for (const { path, modifiedMs } of [...tree].reverse()) {
    await lutimes(join(root, path), modifiedMs / 1000, modifiedMs / 1000);
  }
}
