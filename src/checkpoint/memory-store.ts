import { copyFile, readdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { readImage } from '../criu/image.ts';
import { AlreadyExists, messageOf, NotFound, ResourceExhausted } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Mounter } from '../zfs/mounter.ts';
import { Busy } from '../zfs/errors.ts';
import type { Zfs } from '../zfs/zfs.ts';
import { followChain, storeImage } from './chain.ts';
import { type CheckpointEntry, memoryProperties } from './entry.ts';
import type { ImageCache } from './image-cache.ts';
import { type CheckpointRecord, imageFolder, readRecord, recordFile, writeRecord } from './record.ts';
import type { SmallFiles } from './small-files.ts';

/** errno(3) */
const ENOSPC = 28;
const EDQUOT = 122;

/** Pauses after each attempt to destroy a busy clone, in milliseconds. */
const RETRY_MS = [20, 50, 100, 200, 500, 1000];

/** A checkpoint's memory half, readable at `path` until closed. */
export interface OpenMemory {
  /** Root of the memory dataset as it was: the record, and `image/`. */
  readonly path: string;
  readonly record: CheckpointRecord;
  /** Where CRIU finds its image. */
  readonly imageDir: string;
  /** The clone that it is read through; empty where it is on the tmpfs. */
  readonly clone: string;
  /** Until then only the record and the small files can be read. @throws where the rest cannot be had */
  readonly ready: Promise<void>;
  /** Another reader, who closes it too: it goes with the last of them. */
  hold(): void;
  close(): Promise<void>;
}

export interface StoreRequest {
  /** Container's dataset. */
  readonly dataset: string;
  readonly name: string;
  readonly record: CheckpointRecord;
  /** Folder with CRIU's files; undefined when there is no memory. */
  readonly imageDir: string | undefined;
  /** Whether that folder is the one in the dataset already. */
  readonly inPlace: boolean;
  /** Other files to keep beside the record, by their name there. */
  readonly files?: Readonly<Record<string, string>>;
  /** Most former images that it may refer to for pages that have not changed; 0: none, it is stored whole. */
  readonly links: number;
  readonly signal?: AbortSignal;
  readonly progress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Memory images in the pool: a child dataset `memory` of each container's, whose snapshots bear the
 * checkpoints' names. Images hold secrets, so nothing here is readable but by root, and none of these
 * datasets is ever mounted in a container.
 */
export class MemoryStore {
  readonly #zfs: Zfs;
  readonly #mounter: Mounter;
  readonly #cache: ImageCache;
  readonly #small: SmallFiles;
  readonly #log: Logger;
  /** Parent of the short-lived clones that restores read from. */
  readonly #reading: string;
  readonly #known = new Set<string>();
  /** Heads that are being emptied, by their dataset. */
  readonly #clearing = new Map<string, Promise<void>>();
  /** Clones to be destroyed that were busy. */
  readonly #leftovers = new Set<string>();
  #sequence = 0;

  constructor(
    zfs: Zfs,
    mounter: Mounter,
    root: string,
    cache: { readonly images: ImageCache; readonly small: SmallFiles },
    log: Logger,
  ) {
    this.#zfs = zfs;
    this.#cache = cache.images;
    this.#small = cache.small;
    this.#mounter = mounter;
    this.#log = log;
    this.#reading = `${root}/reading`;
  }

  static datasetOf(containerDataset: string): string {
    return `${containerDataset}/memory`;
  }

  /** The container's dataset that a memory snapshot belongs to. */
  static ownerOf(memorySnapshot: string): string {
    return memorySnapshot.slice(0, memorySnapshot.indexOf('@')).replace(/\/memory$/, '');
  }

  /**
   * Makes what must exist, and destroys the clones that restores of an earlier process left.
   * @param inUse clones that are still read from; `drop` is called of each in its time
   */
  async load(inUse: ReadonlySet<string> = new Set()): Promise<void> {
    await this.#createIdempotent(this.#reading);
    const rows = await this.#zfs.list({
      root: this.#reading,
      depth: 1,
      types: ['filesystem'],
      properties: [],
    });
    for (const { name } of rows)
      if (name !== this.#reading && !inUse.has(name)) await this.#destroyClone(name);
  }

  /** Makes a container's memory dataset if it has none, and mounts it. Can run before the container is frozen. */
  async ensure(containerDataset: string): Promise<string> {
    const dataset = MemoryStore.datasetOf(containerDataset);
    if (this.#known.has(dataset)) {
      try {
        return await this.#mounter.mount(dataset);
      } catch (error) {
        if (!(error instanceof NotFound)) throw error;
        this.#mounter.forget(dataset); // it went with a container of the same name
      }
    }
    await this.#createIdempotent(dataset);
    this.#known.add(dataset);
    return this.#mounter.mount(dataset);
  }

  /** Forgets a dataset that is gone, so that `ensure` makes it again. */
  forget(containerDataset: string): void {
    this.#known.delete(MemoryStore.datasetOf(containerDataset));
  }

  /**
   * The id of the checkpoint whose content the head still holds; undefined where that is not known for sure. The record is
   * the first to go when the head is changed and the last to come, so where it stands all else does.
   */
  async headOf(containerDataset: string): Promise<string | undefined> {
    await this.#clearing.get(MemoryStore.datasetOf(containerDataset));
    return readRecord(await this.ensure(containerDataset)).then(
      ({ id }) => id,
      () => undefined,
    );
  }

  /**
   * Says that the head is about to be changed, so that nobody takes it for a checkpoint's.
   * @returns the folder where it is mounted
   */
  async openHead(containerDataset: string): Promise<string> {
    await this.#clearing.get(MemoryStore.datasetOf(containerDataset));
    const folder = await this.ensure(containerDataset);
    await rm(`${folder}/${recordFile}`, { force: true });
    return folder;
  }

  /**
   * Replaces the head's content by this checkpoint's. Nothing counts until `commit` has snapshotted it.
   * @returns bytes written
   * @throws ResourceExhausted where the pool or a quota has no room for it; the head is empty then
   */
  async write(request: StoreRequest): Promise<number> {
    try {
      return await this.#write(request);
    } catch (error) {
      await this.#empty(request).catch(() => undefined); // the next checkpoint empties it too
      throw outOfSpace(error, request) ?? error;
    }
  }

  /**
   * Empties the head. Others that need it wait. Never rejects: what is left is removed by the next `write`.
   */
  clear(containerDataset: string): Promise<void> {
    const dataset = MemoryStore.datasetOf(containerDataset);
    const clearing = this.openHead(containerDataset)
      .then((folder) => emptyFolder(folder, []))
      .catch(() => undefined)
      .finally(() => this.#clearing.delete(dataset));
    this.#clearing.set(dataset, clearing);
    return clearing;
  }

  async #write(request: StoreRequest): Promise<number> {
    const { imageDir, record, links, signal, progress } = request;
    const former = await this.headOf(request.dataset);
    const folder = await this.openHead(request.dataset);
    const files = Object.entries(request.files ?? {});
    let written: number;
    if (imageDir === undefined || request.inPlace || files.length > 0) {
      await this.#empty(request);
      const image = imageDir === undefined ? undefined : await readImage(imageDir);
      written = image?.bytes ?? 0;
      if (imageDir !== undefined && !request.inPlace)
        await storeImage(folder, {
          from: imageDir,
          id: record.id,
          former: undefined,
          limit: 0,
          signal,
          progress,
        });
    } else {
      written = await storeImage(folder, {
        from: imageDir,
        id: record.id,
        former,
        limit: links,
        signal,
        progress,
      });
    }
    for (const [name, source] of files) await copyFile(source, `${folder}/${name}`);
    await writeRecord(folder, record);
    return written;
  }

  /** Snapshots the memory dataset under the entry's name for it: from now on the checkpoint exists. */
  async commit(entry: CheckpointEntry): Promise<void> {
    if (entry.memorySnapshot === undefined) throw new TypeError(`checkpoint ${entry.id} has no memory half`);
    await this.#zfs.snapshot([entry.memorySnapshot], { properties: memoryProperties(entry) });
  }

  /**
   * Opens a checkpoint's memory half: from the tmpfs where it is still there, else through a clone of its own, so that
   * nothing can change under the reader.
   */
  async open(entry: CheckpointEntry): Promise<OpenMemory> {
    const memory = await this.begin(entry);
    try {
      await memory.ready;
      return memory;
    } catch (error) {
      await memory.close();
      throw error;
    }
  }

  /** The same for a restore, which can begin before all of it is `ready`. */
  async begin(entry: CheckpointEntry): Promise<OpenMemory> {
    const held = this.#cache.hold(entry.id);
    if (held !== undefined) {
      const { imageDir, record } = held;
      const ready = Promise.resolve();
      return counted({
        path: dirname(imageDir),
        record,
        imageDir,
        clone: '',
        ready,
        close: () => held.release(),
      });
    }
    if (entry.memorySnapshot === undefined) throw new TypeError(`checkpoint ${entry.id} has no memory half`);
    const clone = `${this.#reading}/${entry.id}-${process.pid}-${++this.#sequence}`;
    const path = this.#mounter.mountpoint(clone);
    const image = `${path}/${imageFolder}`;
    const ready = this.#openClone(entry.memorySnapshot, clone);
    ready.catch(() => undefined); // whoever waits for it is told
    const lent = await this.#small.lend(entry.id, image);
    if (lent !== undefined) {
      const close = async (): Promise<void> => {
        await ready.catch(() => undefined); // until then it is being made
        await Promise.all([this.#destroyClone(clone), lent.remove()]);
      };
      return counted({ path, record: lent.record, imageDir: lent.imageDir, clone, ready, close });
    }
    try {
      await ready;
      const record = await readRecord(path);
      const close = async (): Promise<void> => {
        if (entry.memory === 'image') await this.#keepSmallFiles(entry.id, image, record);
        await this.#destroyClone(clone);
      };
      return counted({ path, record, imageDir: image, clone, ready, close });
    } catch (error) {
      await this.#destroyClone(clone);
      throw error;
    }
  }

  /** Forgets what is on the tmpfs of a checkpoint's image: the checkpoint is gone. */
  async forgetImage(id: string): Promise<void> {
    await Promise.all([this.#cache.drop(id), this.#small.drop(id)]);
  }

  /** For the next reader; never throws, as who has read has what there was to have. */
  async #keepSmallFiles(id: string, image: string, record: CheckpointRecord): Promise<void> {
    await this.#small.keep(id, image, record).catch((error: unknown) => {
      this.#log.info('the small files of a memory image are not kept', { id, error: messageOf(error) });
    });
  }

  async #openClone(snapshot: string, clone: string): Promise<void> {
    await this.#zfs.clone(snapshot, clone, { properties: this.#mounter.birthProperties(clone) });
    this.#mounter.made(clone);
    await followChain(`${await this.#mounter.mount(clone)}/${imageFolder}`);
  }

  /** Takes a clone away that an earlier process opened. */
  async drop(clone: string): Promise<void> {
    await this.#destroyClone(clone);
  }

  async #empty(request: StoreRequest): Promise<void> {
    const inPlace = request.inPlace && request.imageDir !== undefined;
    await emptyFolder(await this.ensure(request.dataset), inPlace ? [imageFolder] : []);
  }

  async #createIdempotent(dataset: string): Promise<void> {
    try {
      const birth = this.#mounter.birthProperties(dataset);
      await this.#zfs.create(dataset, { properties: { ...birth, compression: 'on' } });
      this.#mounter.made(dataset);
    } catch (error) {
      if (!(error instanceof AlreadyExists)) throw error;
    }
  }

  /** Destroys clones that were still in use when their restore ended. Cheap where there are none. */
  async sweep(): Promise<void> {
    for (const clone of [...this.#leftovers]) await this.#destroyClone(clone);
  }

  /**
   * zfs-fuse hears of an unmount a little after the kernel has done it, and a restored process may hold a mapping
   * for a moment: what is busy now is tried again, here and by each sweep, and by `load` after a restart.
   */
  async #destroyClone(clone: string): Promise<void> {
    this.#leftovers.add(clone);
    for (const pause of RETRY_MS) {
      try {
        await this.#mounter.unmount(clone);
        await this.#zfs.destroyIdempotent(clone);
        this.#mounter.forget(clone);
        this.#leftovers.delete(clone);
        return;
      } catch (error) {
        if (!(error instanceof Busy)) throw error;
        await sleep(pause);
      }
    }
    this.#log.info('a clone of a memory image is still in use: the next sweep takes it', { clone });
  }
}

/** Closes what is open when the last of its readers has closed it. */
function counted(open: Omit<OpenMemory, 'hold'>): OpenMemory {
  let readers = 1;
  return {
    ...open,
    hold: () => void readers++,
    close: async () => {
      if (--readers === 0) await open.close();
    },
  };
}

/** ENOSPC and EDQUOT as one of ours. Node has no name for EDQUOT. */
function outOfSpace(error: unknown, request: StoreRequest): ResourceExhausted | undefined {
  const number = error instanceof Error && 'errno' in error ? error.errno : undefined;
  if (number !== -ENOSPC && number !== -EDQUOT) return undefined;
  const what = number === -EDQUOT ? 'the quota leaves no room' : 'the pool has no room';
  return new ResourceExhausted(`${what} for the memory of checkpoint ${request.name}`, {
    subject: request.name,
    reason: 'no-room',
    remedy: 'see stasis df for what takes it; remove checkpoints with stasis rm, or raise the quota',
  });
}

async function emptyFolder(folder: string, but: readonly string[]): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!but.includes(name)) await rm(`${folder}/${name}`, { recursive: true, force: true });
  }
}
