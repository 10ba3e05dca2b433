// Which pages of an image are what they were in the image before: by address and content.
import { hash } from 'node:crypto';
import { open, readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  decodePagemap,
  IN_PARENT,
  LAZY,
  NotUnderstood,
  PAGE,
  type PagemapEntry,
  PRESENT,
} from './pagemap.ts';

/**
 * Bytes of SHA-256 that stand for a page. Two pages of the same 128 bits do not come about by chance, and to make
 * some takes 2^64 attempts, by which a container would spoil its own checkpoints.
 */
export const HASH_BYTES = 16;

/** Read and hashed in one go; between two of these others have their turn. */
const CHUNK = 1 << 20;

/** The pages of one process, or of one piece of shared memory. */
export interface PageHashes {
  /** Address and number of pages in turn, by address. */
  readonly runs: readonly number[];
  readonly hashes: Buffer;
}

/** One pagemap, rewritten so that it refers to the image before for what has not changed. */
export interface FileLink {
  readonly name: string;
  readonly pagesName: string;
  readonly pagesId: number;
  readonly entries: readonly PagemapEntry[];
  /** Parts of the pages file that have changed, in bytes. */
  readonly ranges: readonly { readonly from: number; readonly to: number }[];
}

export interface Compared {
  readonly files: ReadonlyMap<string, PageHashes>;
  readonly links: readonly FileLink[];
  /** Pages that were looked at; those of a pagemap that is not understood are not among them. */
  readonly pages: number;
  readonly changed: number;
}

const pagemapName = /^pagemap-.*\.img$/;

/**
 * Compares every page of an image with the page at the same address of the former one. A pagemap that is in any way not as
 * expected is left out of the answer, and so stored as it is.
 * @param former pages by the name of their pagemap; none: all count as changed
 */
export async function comparePages(
  folder: string,
  former: ReadonlyMap<string, PageHashes>,
  signal?: AbortSignal,
): Promise<Compared> {
  const files = new Map<string, PageHashes>();
  const links: FileLink[] = [];
  let [pages, changed] = [0, 0];
  const owners = new Map<string, number>();
  const names = (await readdir(folder)).filter((name) => pagemapName.test(name));
  const maps = [];
  for (const name of names) {
    const map = await readPagemap(join(folder, name));
    if (map === undefined) continue;
    const pagesName = `pages-${map.pagesId}.img`;
    owners.set(pagesName, (owners.get(pagesName) ?? 0) + 1);
    maps.push({ name, pagesName, ...map });
  }
  for (const map of maps) {
    if (owners.get(map.pagesName) !== 1) continue;
    const one = await compareFile(join(folder, map.pagesName), map.entries, former.get(map.name), signal);
    if (one === undefined) continue;
    files.set(map.name, one.now);
    links.push({ ...map, entries: one.entries, ranges: one.ranges });
    pages += one.pages;
    changed += one.changed;
  }
  return { files, links, pages, changed };
}

async function readPagemap(
  path: string,
): Promise<{ pagesId: number; entries: readonly PagemapEntry[] } | undefined> {
  try {
    const map = decodePagemap(await readFile(path));
    let end = 0;
    for (const { vaddr, pages, flags } of map.entries) {
      if ((flags & ~LAZY) !== PRESENT) throw new NotUnderstood('it has entries of other kinds');
      if (vaddr < end || vaddr % PAGE !== 0 || pages < 1) throw new NotUnderstood('it is not in order');
      end = vaddr + pages * PAGE;
    }
    return map;
  } catch (error) {
    if (error instanceof NotUnderstood) return undefined;
    throw error;
  }
}

async function compareFile(
  path: string,
  entries: readonly PagemapEntry[],
  former: PageHashes | undefined,
  signal: AbortSignal | undefined,
): Promise<
  | {
      now: PageHashes;
      entries: PagemapEntry[];
      ranges: { from: number; to: number }[];
      pages: number;
      changed: number;
    }
  | undefined
> {
  const pages = entries.reduce((sum, entry) => sum + entry.pages, 0);
  await using file = await open(path, 'r');
  if ((await file.stat()).size !== pages * PAGE) return undefined;
  const hashes = Buffer.allocUnsafe(pages * HASH_BYTES);
  const cursor = new Cursor(former);
  const split = new Splitter();
  const chunk = Buffer.allocUnsafe(CHUNK);
  let [done, filled] = [0, 0];
  for (const entry of entries) {
    split.begin(entry);
    for (let page = 0; page < entry.pages; page++, done++) {
      if (done * PAGE >= filled) {
        signal?.throwIfAborted();
        const wanted = Math.min(CHUNK, pages * PAGE - filled);
        const { bytesRead } = await file.read(chunk, 0, wanted, filled);
        if (bytesRead !== wanted) return undefined;
        filled += wanted;
      }
      const at = (done * PAGE) % CHUNK;
      hash('sha256', chunk.subarray(at, at + PAGE), 'buffer').copy(hashes, done * HASH_BYTES, 0, HASH_BYTES);
      const same = cursor.holds(entry.vaddr + page * PAGE, hashes, done * HASH_BYTES);
      split.page(same, done);
    }
    split.end();
  }
  return {
    now: { runs: entries.flatMap(({ vaddr, pages: count }) => [vaddr, count]), hashes },
    entries: split.entries,
    ranges: split.ranges,
    pages,
    changed: split.changed,
  };
}

/** Walks the former pages along with the present ones: both go up by address. */
class Cursor {
  readonly #runs: readonly number[];
  readonly #hashes: Buffer;
  #run = 0;
  /** Pages in the runs before. */
  #before = 0;

  constructor(former: PageHashes | undefined) {
    this.#runs = former?.runs ?? [];
    this.#hashes = former?.hashes ?? Buffer.alloc(0);
  }

  /** Whether the former page at this address had the hash that stands at `at` in `hashes`. */
  holds(address: number, hashes: Buffer, at: number): boolean {
    for (;;) {
      const start = this.#runs[this.#run];
      const pages = this.#runs[this.#run + 1];
      if (start === undefined || pages === undefined || address < start) return false;
      if (address < start + pages * PAGE) {
        const from = (this.#before + (address - start) / PAGE) * HASH_BYTES;
        return hashes.compare(this.#hashes, from, from + HASH_BYTES, at, at + HASH_BYTES) === 0;
      }
      this.#run += 2;
      this.#before += pages;
    }
  }
}

/** Splits entries into such of changed pages and such of others. */
class Splitter {
  readonly entries: PagemapEntry[] = [];
  readonly ranges: { from: number; to: number }[] = [];
  changed = 0;
  #entry: PagemapEntry = { vaddr: 0, pages: 0, flags: 0, wide: false };
  #start = 0;
  #pages = 0;
  #same = false;

  begin(entry: PagemapEntry): void {
    this.#entry = entry;
    this.#start = entry.vaddr;
    this.#pages = 0;
  }

  /** @param index which page of the pages file it is */
  page(same: boolean, index: number): void {
    if (this.#pages > 0 && same !== this.#same) this.end();
    this.#same = same;
    this.#pages++;
    if (same) return;
    this.changed++;
    const last = this.ranges.at(-1);
    if (last?.to === index * PAGE) last.to += PAGE;
    else this.ranges.push({ from: index * PAGE, to: (index + 1) * PAGE });
  }

  end(): void {
    if (this.#pages === 0) return;
    const { flags, wide } = this.#entry;
    this.entries.push({
      vaddr: this.#start,
      pages: this.#pages,
      // Not lazy: CRIU's page server copies no page that it finds in a parent (criu/uffd.c has its callback on the top image
      // alone), and a task that touched one would wait for ever. So these are read before the container runs.
      flags: this.#same ? (flags & ~(PRESENT | LAZY)) | IN_PARENT : flags,
      wide,
    });
    this.#start += this.#pages * PAGE;
    this.#pages = 0;
  }
}
