import { readdirSync, statSync, type Stats } from 'node:fs';
import { chmod, readdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { FailedPrecondition, hasErrno } from '../errors.ts';
import { makeFolder } from '../sys/make-folder.ts';
import { onDisk } from '../sys/thread-pool.ts';

export interface ImageFile {
  readonly name: string;
  readonly size: number;
  readonly mode: number;
}

/** What stands in an image folder. */
export interface ImageFolder {
  /** By name. */
  readonly files: readonly ImageFile[];
  /** Sum of the sizes. */
  readonly bytes: number;
  /** Files without which no restore can begin, and which are not there. */
  readonly missing: readonly string[];
}

/**
 * Files of every whole image (https://criu.org/Images). CRIU writes the inventory last, so where it stands the dump came
 * to its end; the OCI runtimes add descriptors.json, which names the standard streams, and restore needs it.
 */
const required: readonly (readonly [string, RegExp])[] = [
  ['inventory.img', /^inventory\.img$/],
  ['pstree.img', /^pstree\.img$/],
  ['core-*.img', /^core-\d+\.img$/],
  ['mm-*.img', /^mm-\d+\.img$/],
  ['pagemap-*.img', /^pagemap-\d+\.img$/],
  ['descriptors.json', /^descriptors\.json$/],
];

/** Reads an image folder. One that does not exist is empty. */
export async function readImage(folder: string): Promise<ImageFolder> {
  const entries = await readEntries(folder).catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  });
  const regular = entries
    .filter(([, entry]) => entry.isFile())
    .map(([name, entry]): ImageFile => ({ name, size: entry.size, mode: entry.mode & 0o777 }));
  return {
    files: regular,
    bytes: regular.reduce((sum, file) => sum + file.size, 0),
    missing: required
      .filter(([, name]) => !regular.some((file) => name.test(file.name)))
      .map(([label]) => label),
  };
}

/** TMPFS_MAGIC, statfs(2). */
const TMPFS = 0x01021994;

/**
 * Names, sorted, with what stat(2) says. On this thread where the folder is on a tmpfs, as it is at most dumps: a container
 * stands still meanwhile, and each of some thirty trips through libuv's threads takes longer than the call.
 */
async function readEntries(folder: string): Promise<[string, Stats][]> {
  if ((await statfs(folder)).type === TMPFS) {
    return readdirSync(folder)
      .sort()
      .map((name) => [name, statSync(join(folder, name))]);
  }
  const names = (await readdir(folder)).sort();
  return Promise.all(
    names.map(async (name): Promise<[string, Stats]> => [name, await stat(join(folder, name))]),
  );
}

/** @throws FailedPrecondition naming what is missing */
export async function requireWholeImage(folder: string): Promise<ImageFolder> {
  const image = await readImage(folder);
  if (image.missing.length > 0) {
    throw new FailedPrecondition(
      `the memory image in ${folder} is not whole: ${image.missing.join(', ')} missing`,
      {
        subject: folder,
      },
    );
  }
  return image;
}

/** Memory holds secrets: the folder gets mode 0700, its files 0600, whatever CRIU's version and umask made of them. */
export async function guardImage(folder: string, image: ImageFolder): Promise<void> {
  await chmod(folder, 0o700);
  const open = image.files.filter((file) => (file.mode & 0o177) !== 0);
  await Promise.all(open.map((file) => chmod(join(folder, file.name), 0o600)));
}

/**
 * Makes an image folder ready for a dump.
 * @param mayMake whether it is made where it does not exist
 * @throws FailedPrecondition when it is not empty, as CRIU would mix two images, or not there
 */
export async function prepareImage(folder: string, mayMake: boolean): Promise<void> {
  if (mayMake) await onDisk(() => makeFolder(folder, 0o700));
  const [first] = await readdir(folder).catch((error: unknown) => {
    if (!hasErrno(error, 'ENOENT')) throw error;
    throw new FailedPrecondition(`the image folder ${folder} is not there any more`, { subject: folder });
  });
  if (first !== undefined) {
    throw new FailedPrecondition(`the image folder ${folder} is not empty: it holds ${first}`, {
      subject: folder,
      remedy: 'name an empty folder, or one that does not exist',
    });
  }
}

/** Empties an image folder, and leaves it. */
export async function emptyImage(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  await Promise.all(names.map((name) => rm(join(folder, name), { recursive: true, force: true })));
}
