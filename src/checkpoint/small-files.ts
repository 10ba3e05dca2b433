import { copyFile, link, readdir, readlink, stat, symlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { innerRoot } from './image-owner.ts';
import type { CheckpointRecord } from './record.ts';
import { decodeSpec } from './spec.ts';
import { openStage, type Stage } from './staging.ts';

/** What stays in the pool alone: pages, and what a deleted file held. CRIU opens them when it restores the tasks. */
const large = /^(pages|ghost-file)-.*\.img$/;
/** CRIU's name of the link to the image before: see chain.ts. */
const parentLink = 'parent';
/** Of one image. Those of a container of a few processes take some 50 KiB. */
const MOST_OF_ONE = 4 << 20;

interface Kept {
  readonly stage: Stage;
  readonly record: CheckpointRecord;
  readonly bytes: number;
  readonly small: readonly string[];
  /** What has to be reached in the pool, by the path it has seen from the image's folder. */
  readonly elsewhere: ReadonlyMap<string, string>;
}

/** An image whose small files are on the tmpfs, and that leads to the pool for the others. */
export interface Lent {
  readonly record: CheckpointRecord;
  readonly imageDir: string;
  remove(): Promise<void>;
}

/**
 * The small files of images that were read from the pool not long ago: thirty of them, each of which costs a reader several
 * round trips to zfs-fuse, and most of which are all that a restore looks at before it comes to the memory itself. With them a
 * restore can begin while what it reads the memory through is still being made. What is here is in the pool too.
 *
 * Invariants: `#bytes` is the sum over `#images`; Map order is the order of last use.
 */
export class SmallFiles {
  readonly #staging: string;
  readonly #limit: number;
  readonly #images = new Map<string, Kept>();
  #bytes = 0;

  /**
   * @param staging folder on a tmpfs
   * @param limit bytes in all; 0 keeps nothing
   */
  constructor(staging: string, limit: number) {
    this.#staging = staging;
    this.#limit = limit;
  }

  /**
   * Keeps a checkpoint's small files, where they are few. Not of a container with a user namespace: its root comes to the folder
   * that CRIU opens, and not through those of the host's root.
   * @param image folder that CRIU would read
   */
  async keep(id: string, image: string, record: CheckpointRecord): Promise<void> {
    if (this.#limit === 0 || this.#images.has(id)) return;
    if (innerRoot(decodeSpec(record.container.spec, record.container.id)) !== undefined) return;
    const files = await sort(image);
    if (files === undefined || files.bytes > this.#limit) return;
    const { small, elsewhere, bytes } = files;
    const stage = await openStage(this.#staging);
    try {
      await Promise.all(small.map((name) => copyFile(join(image, name), join(stage.imageDir, name))));
    } catch (error) {
      await stage.remove();
      throw error;
    }
    if (this.#images.has(id)) return stage.remove(); // another reader was quicker
    this.#images.set(id, { stage, record, bytes, small, elsewhere });
    this.#bytes += bytes;
    for (const other of [...this.#images.keys()]) {
      if (this.#bytes <= this.#limit) break;
      if (other !== id) await this.drop(other);
    }
  }

  /**
   * Makes an image of what is kept, of its own for each reader.
   * @param image the folder in the pool to which it leads for the rest; nothing needs to be there yet
   */
  async lend(id: string, image: string): Promise<Lent | undefined> {
    const kept = this.#images.get(id);
    if (kept === undefined) return undefined;
    this.#images.delete(id);
    this.#images.set(id, kept); // the most recently used
    const stage = await openStage(this.#staging).catch(() => undefined); // a full tmpfs, say
    if (stage === undefined) return undefined;
    const own = (name: string): string => join(stage.imageDir, name);
    // Relative, as CRIU follows them from the folder, when its own root is the container's.
    const pool = relative(stage.imageDir, image);
    try {
      await Promise.all([
        ...kept.small.map((name) => link(join(kept.stage.imageDir, name), own(name))),
        ...[...kept.elsewhere].map(([name, target]) => symlink(join(pool, target), own(name))),
      ]);
    } catch {
      await stage.remove(); // what was kept has just been dropped
      return undefined;
    }
    return { record: kept.record, imageDir: stage.imageDir, remove: () => stage.remove() };
  }

  async drop(id: string): Promise<void> {
    const kept = this.#images.get(id);
    if (kept === undefined) return;
    this.#images.delete(id);
    this.#bytes -= kept.bytes;
    await kept.stage.remove();
  }
}

/** @returns undefined for an image of another shape */
async function sort(image: string): Promise<Pick<Kept, 'small' | 'elsewhere' | 'bytes'> | undefined> {
  const small: string[] = [];
  const elsewhere = new Map<string, string>();
  let bytes = 0;
  for (const entry of await readdir(image, { withFileTypes: true })) {
    const { name } = entry;
    if (name === parentLink && entry.isSymbolicLink()) elsewhere.set(name, await readlink(join(image, name)));
    else if (!entry.isFile()) return undefined;
    else if (large.test(name)) elsewhere.set(name, name);
    else {
      bytes += (await stat(join(image, name))).size;
      if (bytes > MOST_OF_ONE) return undefined;
      small.push(name);
    }
  }
  return { small, elsewhere, bytes };
}
