// Writes the changed pages of an image, and a pagemap that refers to the image before for the rest.
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FileLink } from './page-compare.ts';
import { PageWriter } from './page-writer.ts';
import { encodePagemap } from './pagemap.ts';

/**
 * Writes one process's pagemap and pages file into `to`.
 * @returns bytes written
 */
export async function writeLink(
  from: string,
  to: string,
  link: FileLink,
  signal?: AbortSignal,
): Promise<number> {
  const pagemap = encodePagemap(link);
  await writeFile(join(to, link.name), pagemap, { mode: 0o600 });
  await using source = await open(join(from, link.pagesName), 'r');
  await using target = await open(join(to, link.pagesName), 'w', 0o600);
  const pages = new PageWriter(target, signal);
  for (const { from: begin, to: end } of link.ranges) {
    if (!(await pages.copy(source, begin, end))) throw new Error(`${link.pagesName} is shorter than it was`);
  }
  await pages.flush();
  return pagemap.length + pages.written;
}
