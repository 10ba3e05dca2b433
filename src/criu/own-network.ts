// What an image says of the network namespace of the CRIU that made it.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FailedPrecondition } from '../errors.ts';
import { fieldsOf } from './fields.ts';
import { NotUnderstood } from './pagemap.ts';

/** Of an inventory, criu/include/magic.h; it has no other in front. */
const MAGIC = 0x58313116;

/** Numbers of images/inventory.proto and images/core.proto (task_kobj_ids_entry). */
const field = { rootIds: 3, networkNamespace: 6 } as const;

/**
 * CRIU numbers the namespaces that it meets from 1 on, beginning with its own, of which the first is its pid namespace: no
 * network namespace is ever called so.
 */
const NO_NETWORK = 1;

/**
 * Of an image that was made inside the container's network namespace: tells it that the container's is another than CRIU's, so
 * that a restore makes a new one, as it does of an image that was made outside with `--empty-ns net`. In
 * `inventory.img` CRIU writes which namespaces it was in itself, and a restore gives the container a new one of each
 * kind in which its number differs from that.
 * @param folder with a whole image, as CRIU left it
 * @throws FailedPrecondition where CRIU wrote something else: such an image must not be restored
 */
export async function markNetworkAsOwn(folder: string): Promise<void> {
  const file = join(folder, 'inventory.img');
  const bytes = await readFile(file);
  try {
    const at = networkOfCriu(bytes);
    if (bytes[at] === NO_NETWORK) throw new NotUnderstood('its network namespace has the number of another');
    bytes[at] = NO_NETWORK;
  } catch (error) {
    if (!(error instanceof NotUnderstood)) throw error;
    throw new FailedPrecondition(`CRIU wrote an inventory of another form than is known: ${error.message}`, {
      subject: file,
      remedy: 'use a CRIU of version 3.19 to 4.2, or tell of this as a bug',
    });
  }
  await writeFile(file, bytes);
}

/** @returns where the number is, a single byte */
function networkOfCriu(bytes: Buffer): number {
  if (bytes.length < 8 || bytes.readUInt32LE(0) !== MAGIC)
    throw new NotUnderstood('it does not begin as one');
  const end = 8 + bytes.readUInt32LE(4);
  if (end > bytes.length) throw new NotUnderstood('it is cut off');
  for (const { number, range } of fieldsOf(bytes, 8, end)) {
    if (number !== field.rootIds || range === undefined) continue;
    for (const { number: kind, value, end: after } of fieldsOf(bytes, ...range))
      if (kind === field.networkNamespace && value > 0 && value < 128) return after - 1;
  }
  throw new NotUnderstood('it does not say in which network namespace it was made');
}
