import { fstatSync } from 'node:fs';

const MAX_BYTES = 4 * 1024 * 1024;

/** Everything that the caller wrote to standard input, to its end; nothing where that is a terminal or a device. */
export async function readStdin(): Promise<Buffer> {
  const stat = fstatSync(0, { throwIfNoEntry: false });
  if (stat === undefined || stat.isCharacterDevice()) return Buffer.alloc(0);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BYTES) throw new Error('standard input is larger than 4 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
