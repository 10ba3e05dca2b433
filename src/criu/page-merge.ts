// Makes a whole image of one that refers to the images of pre-dumps for what has not changed since.
import { open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../errors.ts';
import { lazyAreas, type Area } from './mm.ts';
import { PageWriter } from './page-writer.ts';
import {
  decodePagemap,
  encodePagemap,
  IN_PARENT,
  LAZY,
  NotUnderstood,
  PAGE,
  type PagemapEntry,
  PRESENT,
} from './pagemap.ts';

const pagemapName = /^pagemap-.*\.img$/;

/** Pages that follow one another, in memory and in a pages file. */
interface Piece {
  readonly vaddr: number;
  readonly pages: number;
  readonly flags: number;
  /** Whose pages file: 0 is the image's own, 1 the last pre-dump's, and so on. */
  readonly level: number;
  /** Where in that file, in bytes. */
  readonly from: number;
}

/** One process's pagemap of one image. */
interface Level {
  readonly pagesName: string;
  /** In the order of the addresses; `from` counts for those that are present. */
  readonly pieces: readonly Piece[];
  readonly entries: readonly PagemapEntry[];
}

/**
 * Fetches each page that the image leaves to its parent from the newest of the pre-dumps that has it, so that the image is as
 * CRIU would have dumped it without them: whole, in order, and lazy where it may be. What a former image holds and the last
 * one does not ask for is of no more use.
 *
 * A failure leaves an image of which some pagemaps are whole and others not: nothing is to be restored from it.
 * @param folder the image; its files are replaced one by one
 * @param parents folders of the pre-dumps, the newest first
 * @throws NotUnderstood naming the file, where anything is not as CRIU writes it, or a page is nowhere to be had; what the
 *   file system throws; the signal's reason
 */
export async function mergeParents(
  folder: string,
  parents: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  const names = (await readdir(folder)).filter((name) => pagemapName.test(name));
  for (const name of names) {
    try {
      await mergeOne(folder, parents, name, signal);
    } catch (error) {
      if (error instanceof NotUnderstood) throw new NotUnderstood(`${name}: ${error.message}`);
      throw error;
    }
  }
  await rm(join(folder, 'parent'), { force: true }); // CRIU's link to the last pre-dump
}

async function mergeOne(
  folder: string,
  parents: readonly string[],
  name: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const bytes = await readFile(join(folder, name));
  const { pagesId, entries } = decodePagemap(bytes);
  if (!entries.some(({ flags }) => (flags & IN_PARENT) !== 0)) return;
  const folders = [folder, ...parents];
  const levels: (Level | undefined)[] = [levelOf(0, pagesId, entries)];
  for (const [index, parent] of parents.entries()) levels.push(await readLevel(parent, name, index + 1));
  const areas = await readLazyAreas(folder, name);
  const merged: Piece[] = [];
  for (const entry of entries) {
    const end = entry.vaddr + entry.pages * PAGE;
    for (const piece of resolve(levels, 0, entry.vaddr, end))
      for (const part of piece.level === 0 ? [piece] : restrict(piece, areas)) append(merged, part);
  }
  const pagesName = `pages-${pagesId}.img`;
  await writePages(folders, levels, merged, `${pagesName}.new`, signal);
  const wide = entries.some((entry) => entry.wide);
  const pagemap = encodePagemap({ pagesId, entries: joined(merged, wide) });
  await writeFile(join(folder, `${name}.new`), pagemap, { mode: 0o600 });
  await rename(join(folder, `${pagesName}.new`), join(folder, pagesName));
  await rename(join(folder, `${name}.new`), join(folder, name));
}

/** @returns undefined where the image has no such pagemap */
async function readLevel(folder: string, name: string, level: number): Promise<Level | undefined> {
  const bytes = await readFile(join(folder, name)).catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  });
  if (bytes === undefined) return undefined;
  const { pagesId, entries } = decodePagemap(bytes);
  return levelOf(level, pagesId, entries);
}

function levelOf(level: number, pagesId: number, entries: readonly PagemapEntry[]): Level {
  const pieces: Piece[] = [];
  let [end, from] = [0, 0];
  for (const { vaddr, pages, flags } of entries) {
    const kind = flags & (PRESENT | IN_PARENT);
    if ((kind !== PRESENT && kind !== IN_PARENT) || (flags & ~(PRESENT | IN_PARENT | LAZY)) !== 0)
      throw new NotUnderstood('it has entries of other kinds');
    if (vaddr < end || vaddr % PAGE !== 0 || pages < 1) throw new NotUnderstood('it is not in order');
    end = vaddr + pages * PAGE;
    if (end > Number.MAX_SAFE_INTEGER) throw new NotUnderstood('an address is too large');
    pieces.push({ vaddr, pages, flags, level, from });
    if (kind === PRESENT) from += pages * PAGE;
  }
  return { pagesName: `pages-${pagesId}.img`, pieces, entries };
}

/** Where the pages from `start` up to `end` are, beginning the search at a level. */
function* resolve(
  levels: readonly (Level | undefined)[],
  index: number,
  start: number,
  end: number,
): Generator<Piece> {
  const pieces = levels[index]?.pieces ?? [];
  let at = start;
  for (let next = firstEndingAfter(pieces, start); at < end; next++) {
    const piece = pieces[next];
    if (piece === undefined || piece.vaddr > at)
      throw new NotUnderstood(`the page at 0x${at.toString(16)} is in none of the images`);
    const until = Math.min(end, piece.vaddr + piece.pages * PAGE);
    if ((piece.flags & IN_PARENT) !== 0) yield* resolve(levels, index + 1, at, until);
    else yield cut(piece, at, until);
    at = until;
  }
}

/** By halving: a pagemap of a large process has many thousand entries. */
function firstEndingAfter(pieces: readonly Piece[], address: number): number {
  let [low, high] = [0, pieces.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const piece = pieces[middle];
    if (piece !== undefined && piece.vaddr + piece.pages * PAGE <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

function cut(piece: Piece, start: number, end: number, flags = piece.flags): Piece {
  const { vaddr, from, level } = piece;
  return { vaddr: start, pages: (end - start) / PAGE, flags, level, from: from + (start - vaddr) };
}

/**
 * A page was lazy when its parent was dumped. Where its area has been locked since, it is not: a restore that skips it for the
 * page server would have nobody who asks for it (CRIU registers no such area with userfaultfd), and it would be lost.
 */
function* restrict(piece: Piece, areas: readonly Area[]): Generator<Piece> {
  if ((piece.flags & LAZY) === 0) {
    yield piece;
    return;
  }
  const end = piece.vaddr + piece.pages * PAGE;
  let at = piece.vaddr;
  for (const area of areas) {
    if (area.end <= at) continue;
    if (area.start >= end) break;
    if (area.start > at) yield cut(piece, at, area.start, piece.flags & ~LAZY);
    const begin = Math.max(at, area.start);
    at = Math.min(end, area.end);
    yield cut(piece, begin, at);
  }
  if (at < end) yield cut(piece, at, end, piece.flags & ~LAZY);
}

/** Entries that follow one another are one, as CRIU has them, wherever their pages were. */
function joined(pieces: readonly Piece[], wide: boolean): PagemapEntry[] {
  const entries: PagemapEntry[] = [];
  for (const { vaddr, pages, flags } of pieces) {
    const last = entries.at(-1);
    if (last !== undefined && last.flags === flags && last.vaddr + last.pages * PAGE === vaddr)
      entries[entries.length - 1] = { ...last, pages: last.pages + pages };
    else entries.push({ vaddr, pages, flags, wide });
  }
  return entries;
}

/** What follows one another in a file as well is read at once. */
function append(pieces: Piece[], piece: Piece): void {
  const last = pieces.at(-1);
  const follows =
    last !== undefined &&
    last.flags === piece.flags &&
    last.level === piece.level &&
    last.vaddr + last.pages * PAGE === piece.vaddr &&
    last.from + last.pages * PAGE === piece.from;
  if (follows) pieces[pieces.length - 1] = { ...last, pages: last.pages + piece.pages };
  else pieces.push(piece);
}

/** Of a process's memory. Nothing else is lazy, and neither is one whose mappings are not understood. */
async function readLazyAreas(folder: string, name: string): Promise<Area[]> {
  const pid = /^pagemap-(\d+)\.img$/.exec(name)?.[1];
  if (pid === undefined) return [];
  try {
    return lazyAreas(await readFile(join(folder, `mm-${pid}.img`)));
  } catch (error) {
    if (error instanceof NotUnderstood || hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

async function writePages(
  folders: readonly string[],
  levels: readonly (Level | undefined)[],
  pieces: readonly Piece[],
  name: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await using sources = new AsyncDisposableStack();
  const files: (FileHandle | undefined)[] = [];
  for (const [index, level] of levels.entries()) {
    if (!pieces.some((piece) => piece.level === index)) continue;
    const { pagesName, pieces: own } = level ?? { pagesName: '', pieces: [] };
    const file = sources.use(await open(join(folders[index] ?? '', pagesName), 'r'));
    const pages = own.reduce((sum, { flags, pages }) => sum + ((flags & PRESENT) === 0 ? 0 : pages), 0);
    if ((await file.stat()).size !== pages * PAGE)
      throw new NotUnderstood(`${pagesName} does not hold the pages that it should`);
    files[index] = file;
  }
  const target = sources.use(await open(join(folders[0] ?? '', name), 'w', 0o600));
  const writer = new PageWriter(target, signal);
  for (const { level, from, pages } of pieces) {
    const source = files[level];
    if (source === undefined || !(await writer.copy(source, from, from + pages * PAGE)))
      throw new NotUnderstood('a pages file is shorter than it was');
  }
  await writer.flush();
}
