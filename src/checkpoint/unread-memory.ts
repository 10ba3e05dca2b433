// What became of the memory that a stock client's checkpoint handed to containerd: whether anybody can still have it. containerd packs
// the folder that the shim has filled into a blob of its content store and removes the folder; the client names the blob in an
// image, or fails, and the collector removes it.
import { closeSync, existsSync, fstatSync, openSync, readSync, watch, type FSWatcher } from 'node:fs';
import { join } from 'node:path';
import { compressionOf } from '../../snapshotter/diff/compression.ts';
import { type FileEvent, happened, Inotify } from '../sys/inotify.ts';
import { BLOCK, paddingAfter } from '../tar/entry.ts';
import { field, readText } from '../tar/fields.ts';
import { decodeHeader, isEnd, PendingHeaders } from '../tar/header.ts';
import { STOCK_FILE } from './stock.ts';

/** Bytes: more than STOCK_FILE ever has. */
const MAX_FILE = 64 * 1024;

const { opened, closedUnwritten, movedAway, movedHere, deleted, selfDeleted, selfMoved } = happened;
const BLOBS = opened | closedUnwritten | movedAway | movedHere | deleted;
const FOLDER = selfDeleted | selfMoved;

interface Followed {
  readonly id: string;
  readonly folder: FolderWatch;
  /** The blob's name, once it is there. */
  blob: string | undefined;
  /** Whether each blob that came since was looked into, so that its own is known to be none of them. */
  certain: boolean;
}

interface FolderWatch {
  readonly watch: number;
  readonly wake: FSWatcher;
}

/**
 * Follows the memory of such checkpoints, and tells of those of which nobody can have it: the folder went and no blob had been made of
 * it, or the blob went and nobody had opened it. Whatever is not proven so is not told: opened blobs, folders and blobs that stay, and
 * all that happened while nobody looked.
 *
 * Invariant: one queue of events holds those of the folders and of the store, so their order is known; blobs are looked into at
 * once, between two reads of it, so that our own opening is told from others'.
 */
export class UnreadMemory {
  readonly #lost: (id: string) => void;
  readonly #followed = new Map<string, Followed>();
  #events: Inotify | undefined;
  /** The folder of containerd's blobs, our watch of it, and what wakes us. */
  #store: { readonly path: string; readonly watch: number; readonly wake: FSWatcher } | undefined;

  /** @param lost told the checkpoint's id, once */
  constructor(lost: (id: string) => void) {
    this.#lost = lost;
  }

  /**
   * Follows one from before its folder is complete.
   * @param folder containerd's own, in which STOCK_FILE does not stand yet
   * @param blobs the folder of containerd's content store that has its blobs
   * @returns whether it is followed
   * @throws SysError, or Node's errors, where a folder cannot be watched
   */
  follow(id: string, folder: string, blobs: string): boolean {
    this.#look();
    if (this.#store !== undefined && this.#store.path !== blobs) this.close(); // another containerd
    const wake = (): void => this.#look();
    try {
      this.#events ??= new Inotify();
      this.#store ??= {
        path: blobs,
        watch: this.#events.watch(blobs, BLOBS),
        wake: watcher(blobs, wake),
      };
      const watch = this.#events.watch(folder, FOLDER);
      this.#followed.set(id, {
        id,
        folder: { watch, wake: watcher(folder, wake) },
        blob: undefined,
        certain: true,
      });
      // Where it stands there, containerd may have been answered, and have made its blob.
      if (!existsSync(join(folder, STOCK_FILE))) return true;
      this.#forget(id);
      return false;
    } catch (error) {
      this.#endIfIdle();
      throw error;
    }
  }

  close(): void {
    for (const id of [...this.#followed.keys()]) this.#forget(id);
    this.#endIfIdle();
  }

  #look(): void {
    const queue = this.#events?.read() ?? [];
    for (let event = queue.shift(); event !== undefined; event = queue.shift()) {
      if (this.#events === undefined) return;
      const { mask, watch } = event;
      if ((mask & (happened.overflow | happened.unmounted)) !== 0) this.close();
      else if (watch === this.#store?.watch) queue.push(...this.#inStore(event));
      else this.#folderGone(event);
    }
  }

  /** @returns what happened meanwhile */
  #inStore({ mask, name }: FileEvent): FileEvent[] {
    if ((mask & happened.ignored) !== 0) this.close();
    if ((mask & movedHere) !== 0) return this.#made(name);
    const followed = [...this.#followed.values()].find(({ blob }) => blob === name);
    if (followed === undefined) return [];
    if ((mask & (opened | movedAway)) !== 0) this.#forget(followed.id);
    else if ((mask & deleted) !== 0) this.#tell(followed.id);
    return [];
  }

  #made(name: string): FileEvent[] {
    const { path = '' } = this.#store ?? {};
    const before = this.#events?.read() ?? [];
    const id = idIn(join(path, name));
    const since = this.#events?.read() ?? [];
    for (const kind of [opened, closedUnwritten]) {
      const own = since.findIndex((event) => event.name === name && (event.mask & kind) !== 0);
      if (own >= 0) since.splice(own, 1);
    }
    if (id === undefined) for (const each of this.#followed.values()) each.certain = false; // it may be any one's
    const followed = this.#followed.get(id ?? '');
    if (followed !== undefined) followed.blob = name;
    return [...before, ...since];
  }

  #folderGone({ mask, watch }: FileEvent): void {
    const followed = [...this.#followed.values()].find(({ folder }) => folder.watch === watch);
    if (followed === undefined) return;
    followed.folder.wake.close();
    if (followed.blob !== undefined) return; // that is what counts from now on
    if ((mask & selfDeleted) !== 0 && followed.certain) this.#tell(followed.id);
    else this.#forget(followed.id);
  }

  #tell(id: string): void {
    this.#forget(id);
    this.#lost(id);
  }

  #forget(id: string): void {
    const followed = this.#followed.get(id);
    if (followed === undefined) return;
    this.#followed.delete(id);
    followed.folder.wake.close();
    this.#events?.unwatch(followed.folder.watch);
    this.#endIfIdle();
  }

  #endIfIdle(): void {
    if (this.#followed.size > 0) return;
    this.#store?.wake.close();
    this.#store = undefined;
    this.#events?.close();
    this.#events = undefined;
  }
}

/** Wakes us; what has happened is read from the queue. */
function watcher(path: string, wake: () => void): FSWatcher {
  return watch(path, { persistent: false }, wake).on('error', wake);
}

/** The checkpoint that a blob is the memory of: empty where it is no memory; undefined where that cannot be told. */
function idIn(path: string): string | undefined {
  try {
    const fd = openSync(path, 'r');
    try {
      const text = findFile(fd, STOCK_FILE);
      const file = text === undefined ? {} : (JSON.parse(text) as { checkpoint?: unknown });
      return typeof file.checkpoint === 'string' ? file.checkpoint : '';
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined; // gone already, or an archive that is not understood
  }
}

/**
 * A file's content in a blob, where that is an archive that has it. Only headers are read beside, as memory may be large.
 * @throws for an archive that is compressed or not understood
 */
function findFile(fd: number, name: string): string | undefined {
  const { size } = fstatSync(fd);
  const head = bytesAt(fd, 0, BLOCK);
  if (compressionOf(head) !== 'none') throw new Error('it is compressed');
  if (head.length < BLOCK || !readText(head, field.magic).startsWith('ustar')) return undefined;
  const pending = new PendingHeaders();
  for (let at = 0; at < size;) {
    const block = bytesAt(fd, at, BLOCK);
    if (isEnd(block)) return undefined;
    const header = decodeHeader(block, pending);
    const { entry, stored, special } = header;
    at += BLOCK;
    const isIt = special === undefined && entry.name.replace(/^\.?\//, '') === name;
    if (isIt || special !== undefined) {
      if (stored > MAX_FILE) throw new Error(`${entry.name} has ${stored} bytes`);
      const content = bytesAt(fd, at, stored);
      if (isIt) return content.toString('utf8');
      pending.add(header, content);
    }
    at += stored + paddingAfter(stored);
  }
  throw new Error('the archive has no end');
}

function bytesAt(fd: number, at: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  return bytes.subarray(0, readSync(fd, bytes, 0, length, at));
}
