// Tmpfs mounts of a container that CRIU need neither pack nor unpack: empty ones, and /dev.
import { mkdirSync, utimesSync } from 'node:fs';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../errors.ts';
import { mountTmpfs, unmount } from '../sys/mount.ts';
import { makeTree, readTree, type TreeNode } from './nodes.ts';
import { parseMountTable, readMountTable, type MountEntry } from '../sys/mount-table.ts';

/**
 * CRIU keeps the content of a tmpfs by `tar --gzip`: three processes for each, at the dump and again at the restore. Of the
 * five in a usual container (/dev, /dev/shm, /run, and two that mask folders) four are empty, and these fifteen processes
 * were more than half of a small container's frozen time. So one that is empty, or holds nothing but devices, folders and
 * links, is named to CRIU as an external mount, and written down here; before the restore a new one with the same options
 * and content is mounted and handed to CRIU as that mount.
 */
export interface PlainTmpfs {
  /** The name of the external mount. */
  readonly key: string;
  readonly target: string;
  readonly source: string;
  /** For mount(2), owner and mode of its root included. */
  readonly options: readonly string[];
  readonly modifiedMs: number;
  /** What is in it; none where it is empty. */
  readonly tree?: readonly TreeNode[];
}

/** In the image folder, beside CRIU's files. Where it is missing, nothing was left out. */
const file = 'stasis-tmpfs.json';

/** Options of tmpfs(5) that a new mount can be given as they are printed. Others, a security label say, leave it to CRIU. */
const known =
  /^(ro|rw|size=\d+[kmg]?|nr_blocks=\d+|nr_inodes=\d+|mode=[0-7]+|uid=\d+|gid=\d+|inode32|inode64|noswap)$/;

/** What CRIU's configuration file can hold without quotes: criu.conf(5). */
const plain = /^\/[\w./-]*$/;

/**
 * The plain tmpfs mounts of a process's mount namespace that nobody else has: neither bound a second time there (but for
 * their `null` over files that are masked, which the runtimes bind from the host at a restore), nor
 * mounted on the host (a pod's /dev/shm), nor in a user namespace, whose owner a new one would not have. The
 * process has to stand still.
 */
export async function findPlainTmpfs(pid: number): Promise<PlainTmpfs[]> {
  const [own, theirs] = await Promise.all([userNamespace('self'), userNamespace(String(pid))]);
  if (own !== theirs) return [];
  const [host, table] = await Promise.all([
    readMountTable(),
    readFile(`/proc/${pid}/mountinfo`, 'utf8').then(parseMountTable),
  ]);
  const found: PlainTmpfs[] = [];
  for (const entry of candidates(table, host)) {
    const empty = await describe(`/proc/${pid}/root${entry.target}`, entry, found.length);
    if (empty !== undefined) found.push(empty);
  }
  return found;
}

/** Those that the mount tables alone do not rule out. */
export function candidates(table: readonly MountEntry[], host: readonly MountEntry[]): MountEntry[] {
  return table.filter(
    (entry) =>
      entry.type === 'tmpfs' &&
      entry.root === '/' &&
      plain.test(entry.target) &&
      plain.test(`/${entry.source}`) &&
      entry.superOptions.split(',').every((option) => known.test(option)) &&
      !host.some(({ device }) => device === entry.device) &&
      table.filter(
        ({ device, target, root }) =>
          (device === entry.device && !(entry.target === '/dev' && root === '/null')) ||
          target === entry.target,
      ).length === 1,
  );
}

/** @returns undefined for one that is not plain, or that another mount hides */
async function describe(path: string, entry: MountEntry, index: number): Promise<PlainTmpfs | undefined> {
  const root = await stat(path);
  if (deviceOf(root.dev) !== entry.device) return undefined;
  const tree = readTree(path);
  if (tree === undefined || (tree.length > 0 && entry.superOptions.split(',').includes('ro')))
    return undefined;
  const replaced = /^(mode|uid|gid)=/;
  return {
    key: `stasis-tmpfs-${index}`,
    target: entry.target,
    source: entry.source,
    options: [
      ...entry.superOptions.split(',').filter((option) => !replaced.test(option)),
      `mode=${(root.mode & 0o7777).toString(8)}`,
      `uid=${root.uid}`,
      `gid=${root.gid}`,
    ],
    modifiedMs: root.mtimeMs,
    ...(tree.length === 0 ? {} : { tree }),
  };
}

/** `major:minor` from st_dev: makedev(3). */
export function deviceOf(dev: number): string {
  const bits = BigInt(dev);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & 0xfffff000n);
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** Lines for CRIU's configuration at the dump: these mounts are somebody else's to bring back. */
export function dumpLines(mounts: readonly PlainTmpfs[]): string[] {
  return mounts.map(({ target, key }) => `external mnt[${target}]:${key}`);
}

/** Writes down beside the image what it leaves out. */
export async function recordTmpfs(imageDir: string, mounts: readonly PlainTmpfs[]): Promise<void> {
  if (mounts.length > 0) await writeFile(join(imageDir, file), JSON.stringify(mounts), { mode: 0o600 });
}

async function readTmpfs(imageDir: string): Promise<readonly PlainTmpfs[]> {
  try {
    return JSON.parse(await readFile(join(imageDir, file), 'utf8')) as PlainTmpfs[];
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** The mounts for one restore, until disposed of: CRIU binds them, so the restored container keeps its own. */
export interface RemadeTmpfs extends AsyncDisposable {
  /** Lines for CRIU's configuration. */
  readonly lines: readonly string[];
}

/**
 * Makes the tmpfs mounts anew that an image leaves out, each below `folder`.
 * @throws SysError where one cannot be mounted; none is left then
 */
export async function remakeTmpfs(imageDir: string, folder: string): Promise<RemadeTmpfs> {
  const mounts = await readTmpfs(imageDir);
  const made: string[] = [];
  const remade: RemadeTmpfs = {
    lines: mounts.map(({ key }) => `external mnt[${key}]:${join(folder, key)}`),
    async [Symbol.asyncDispose]() {
      for (const target of made.splice(0)) {
        await unmount(target, { detach: true });
        await rm(target, { recursive: true, force: true });
      }
    },
  };
  try {
    for (const { key, source, options, modifiedMs, tree = [] } of mounts) {
      if (!/^stasis-tmpfs-\d+$/.test(key)) throw new Error(`"${key}" in ${imageDir} is no name of a mount`);
      const target = join(folder, key);
      // On this thread, as all of it is in memory: five mounts took 15 ms by way of libuv's threads.
      mkdirSync(target, { recursive: true, mode: 0o700 });
      mountTmpfs({ source, target, options });
      made.push(target);
      makeTree(target, tree);
      if (!options.includes('ro')) utimesSync(target, modifiedMs / 1000, modifiedMs / 1000);
    }
  } catch (error) {
    await remade[Symbol.asyncDispose]();
    throw error;
  }
  return remade;
}

async function userNamespace(pid: string): Promise<number> {
  return (await stat(`/proc/${pid}/ns/user`)).ino;
}
