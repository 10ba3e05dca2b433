// The images in the head of a memory dataset: each holds the pages that changed since the one before.
import {
  copyFile,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Internal } from '../errors.ts';
import { readImage, type ImageFile } from '../criu/image.ts';
import { comparePages, type Compared } from '../criu/page-compare.ts';
import { readPageIndex, writePageIndex } from '../criu/page-index.ts';
import { writeLink } from '../criu/page-link.ts';
import { PAGE } from '../criu/pagemap.ts';
import { imageFolder } from './record.ts';
import { makeFolder } from '../sys/make-folder.ts';

/** The pages of the image by address, as hashes, for the next checkpoint. */
export const indexFile = 'pages.index';

/** CRIU's name of the link to the image before: CR_PARENT_LINK, criu/include/image.h. */
const parentLink = 'parent';

/** Former images, by their number. */
const linkFolder = (number: number): string => `link-${number}`;

/** What CRIU reads of an image before. */
const pageFile = /^(pagemap-.*|pages-.*)\.img$|^parent$/;

/** Images are a dozen small files and one large: the small ones cost round trips, not bytes. */
const PARALLEL_COPIES = 4;

/** Below 16 MiB an image is stored whole: hashing its pages takes longer than writing them (some 10 µs a page). */
const LEAST_PAGES = 4096;

/** Most of the image that may have changed for a link to pay; and most images' worth of pages that a chain may hold. */
const MOST_CHANGED = 0.5;
const MOST_STORED = 2;

export interface ImageToStore {
  /** Folder with CRIU's files, whole. */
  readonly from: string;
  /** The checkpoint's id. */
  readonly id: string;
  /** The checkpoint whose content the head holds for sure; undefined where that is not known. */
  readonly former: string | undefined;
  /** Most links that a chain may have; 0: each image is stored whole, and nothing is compared. */
  readonly limit: number;
  /** Pages of an image that is worth comparing. */
  readonly leastPages?: number;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/**
 * Stores an image in a head: the changed pages alone where the head holds the image before and that pays, else all.
 *
 * The image is `image/`; where it refers to the one before, that is `link-<n>/` beside it, by CRIU's own link `parent`, and
 * so on. Whatever else was in these folders is gone. While this is at work the head is no checkpoint's: the caller takes
 * the record away before, and writes it afterwards.
 * @returns bytes written
 */
export async function storeImage(head: string, image: ImageToStore): Promise<number> {
  const { from, id, former, limit, leastPages = LEAST_PAGES, signal } = image;
  const { files } = await readImage(from);
  if (limit === 0 || sizeOfPages(files) < leastPages * PAGE) return storeWhole(head, files, image);
  const index = former === undefined ? undefined : await readPageIndex(join(head, indexFile));
  if (index === undefined || index.id !== former || index.links >= limit) {
    await rm(join(head, indexFile), { force: true });
    const [written, compared] = await Promise.all([
      storeWhole(head, files, image),
      comparePages(from, new Map(), signal),
    ]);
    return written + (await writeIndex(head, id, 0, compared.pages, compared));
  }
  const compared = await comparePages(from, index.files, signal);
  const storedPages = index.storedPages + compared.changed;
  await rm(join(head, indexFile), { force: true });
  if (compared.changed > compared.pages * MOST_CHANGED || storedPages > compared.pages * MOST_STORED) {
    const written = await storeWhole(head, files, image);
    return written + (await writeIndex(head, id, 0, compared.pages, compared));
  }
  const links = index.links + 1;
  const written = await storeLink(head, files, image, compared, links);
  return written + (await writeIndex(head, id, links, storedPages, compared));
}

function writeIndex(
  head: string,
  id: string,
  links: number,
  storedPages: number,
  { files }: Compared,
): Promise<number> {
  return writePageIndex(join(head, indexFile), { id, links, storedPages, files });
}

function sizeOfPages(files: readonly ImageFile[]): number {
  return files.filter(({ name }) => name.startsWith('pages-')).reduce((sum, { size }) => sum + size, 0);
}

async function storeWhole(head: string, files: readonly ImageFile[], image: ImageToStore): Promise<number> {
  await rm(join(head, indexFile), { force: true });
  const names = await readdir(head);
  await Promise.all(
    names
      .filter((name) => name.startsWith('link-'))
      .map((name) => rm(join(head, name), { recursive: true, force: true })),
  );
  const to = join(head, imageFolder);
  // Not mkdir's `recursive`, which hides a quota's refusal behind ENOENT.
  await makeFolder(to, 0o700);
  await removeOthers(to, new Set(files.map(({ name }) => name)));
  return copyFiles(files, to, image);
}

async function storeLink(
  head: string,
  files: readonly ImageFile[],
  image: ImageToStore,
  { links: pagemaps }: Compared,
  number: number,
): Promise<number> {
  const to = join(head, imageFolder);
  const before = join(head, linkFolder(number));
  await rm(before, { recursive: true, force: true });
  await mkdir(before, { mode: 0o700 });
  const names = (await readdir(to)).filter((name) => pageFile.test(name));
  await Promise.all(names.map((name) => rename(join(to, name), join(before, name))));
  await removeOthers(to, new Set(files.map(({ name }) => name)));
  await symlink(`../${basename(before)}`, join(to, parentLink));
  const linked = new Set(pagemaps.flatMap(({ name, pagesName }) => [name, pagesName]));
  let written = await copyFiles(
    files.filter(({ name }) => !linked.has(name)),
    to,
    image,
  );
  for (const pagemap of pagemaps) written += await writeLink(image.from, to, pagemap, image.signal);
  return written;
}

/** What stays is written over: that costs a file system less than to remove a file and make it again. */
async function removeOthers(folder: string, keep: ReadonlySet<string>): Promise<void> {
  const others = (await readdir(folder)).filter((name) => !keep.has(name));
  await Promise.all(others.map((name) => rm(join(folder, name), { recursive: true, force: true })));
}

async function copyFiles(
  files: readonly ImageFile[],
  to: string,
  { from, signal, progress }: ImageToStore,
): Promise<number> {
  const total = files.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  const queue = files.values();
  const worker = async (): Promise<void> => {
    for (const { name, size } of queue) {
      signal?.throwIfAborted();
      await copyInto(join(from, name), join(to, name), size);
      done += size;
      progress?.(done, total);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_COPIES }, worker));
  return done;
}

/** Most files of an image are small, and copyFile(3) makes several requests more of each to the file system. */
const SMALL_BYTES = 1 << 20;

async function copyInto(from: string, to: string, size: number): Promise<void> {
  if (size > SMALL_BYTES) await copyFile(from, to);
  else await writeFile(to, await readFile(from), { mode: 0o600 });
}

/**
 * Follows an image through those that it refers to.
 * @returns how many they are
 * @throws Internal where one of them is not there, so that pages would be missing
 */
export async function followChain(image: string): Promise<number> {
  let folder = image;
  for (let links = 0; ; links++) {
    const target = await readlink(join(folder, parentLink)).catch(() => undefined);
    if (target === undefined) return links;
    const next = join(folder, target);
    const found = await lstat(next).catch(() => undefined);
    if (!/^\.\.\/link-\d+$/.test(target) || found?.isDirectory() !== true || next === folder) {
      throw new Internal(
        `the checkpoint's memory is not whole: it refers to pages in ${next}, which is missing`,
        {
          subject: image,
          reason: 'damaged-image',
          remedy:
            'the pool may be damaged: look at zpool status; other checkpoints of the container may be whole',
        },
      );
    }
    folder = next;
  }
}
