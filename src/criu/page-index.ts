import { readFile, writeFile } from 'node:fs/promises';
import { HASH_BYTES, type PageHashes } from './page-compare.ts';

/** What the head of a memory dataset holds, for the next checkpoint to be compared with. */
export interface PageIndex {
  /** The checkpoint whose pages these are. */
  readonly id: string;
  /** Former images that its own refers to. */
  readonly links: number;
  /** Pages in all their pages files together. */
  readonly storedPages: number;
  /** By the name of a pagemap. */
  readonly files: ReadonlyMap<string, PageHashes>;
}

const form = 'stasis-pages-1';

/** One line of JSON, then the hashes in the order of the files. */
export async function writePageIndex(path: string, index: PageIndex): Promise<number> {
  const files = [...index.files];
  const { id, links, storedPages } = index;
  const head = { form, id, links, storedPages, files: files.map(([name, { runs }]) => [name, runs]) };
  const text = Buffer.from(`${JSON.stringify(head)}\n`);
  const bytes = Buffer.concat([text, ...files.map(([, { hashes }]) => hashes)]);
  await writeFile(path, bytes, { mode: 0o600 });
  return bytes.length;
}

/** @returns undefined where there is none, or one that is not whole: then nothing is compared */
export async function readPageIndex(path: string): Promise<PageIndex | undefined> {
  const bytes = await readFile(path).catch(() => undefined);
  const end = bytes?.indexOf('\n') ?? -1;
  if (bytes === undefined || end < 0) return undefined;
  try {
    const head = JSON.parse(bytes.toString('utf8', 0, end)) as {
      form: string;
      id: string;
      links: number;
      storedPages: number;
      files: [string, number[]][];
    };
    if (head.form !== form) return undefined;
    let at = end + 1;
    const files = new Map<string, PageHashes>();
    for (const [name, runs] of head.files) {
      let pages = 0;
      for (let index = 1; index < runs.length; index += 2) pages += runs[index] ?? 0;
      files.set(name, { runs, hashes: bytes.subarray(at, (at += pages * HASH_BYTES)) });
    }
    return at === bytes.length ? { ...head, files } : undefined;
  } catch {
    return undefined;
  }
}
