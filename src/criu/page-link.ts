// Writes the changed pages of an image, and a pagemap that refers to the image before for the rest.
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FileLink } from './page-compare.ts';
import { encodePagemap } from './pagemap.ts';

const CHUNK = 1 << 20;

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
  const chunk = Buffer.allocUnsafe(CHUNK);
  let [filled, written] = [0, 0];
  const flush = async (): Promise<void> => {
    signal?.throwIfAborted();
    for (let at = 0; at < filled;) {
      const { bytesWritten } = await target.write(chunk, at, filled - at, written);
      at += bytesWritten;
      written += bytesWritten;
    }
    filled = 0;
  };
  for (const { from: begin, to: end } of link.ranges) {
    for (let at = begin; at < end;) {
      const { bytesRead } = await source.read(chunk, filled, Math.min(CHUNK - filled, end - at), at);
      if (bytesRead === 0) throw new Error(`${link.pagesName} is shorter than it was`);
      at += bytesRead;
      filled += bytesRead;
      if (filled === CHUNK) await flush();
    }
  }
  await flush();
  return pagemap.length + written;
}
