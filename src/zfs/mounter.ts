import { lstat, mkdir, rmdir, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineExceeded, hasErrno, NotFound, Unavailable } from '../errors.ts';
import { mount as mountNow, unmount as unmountNow } from '../sys/mount.ts';
import { Busy } from './errors.ts';
import { checkDataset } from './names.ts';
import { Patience } from './patience.ts';
import { DEFAULT_TIMEOUT_MS } from '../sys/command.ts';
import { readMountTable, type MountEntry } from '../sys/mount-table.ts';
import type { Properties, Zfs } from './zfs.ts';

/** Milliseconds that zfs-fuse gets to read what the kernel has for it before a mount goes. */
const SETTLE_MS = 5;
/** Pauses after each attempt to mount a zfs-fuse dataset that is busy, in milliseconds. */
const REMOUNT_MS = [20, 50, 100, 200, 500];

/** Where datasets are mounted, and the one place that mounts and unmounts them. Mounts outlive this process. */
export interface Mounter {
  /**
   * The path at which a dataset is mounted; mounts it where it is not. No process on the kernel module, for a new
   * dataset and where it is mounted already; otherwise a `zfs get` on zfs-fuse.
   * @throws NotFound where there is no such dataset
   */
  mount(dataset: string): Promise<string>;
  /**
   * Takes our mounts of a dataset and of those below it away. Does nothing where there is none.
   * @throws Busy where it is mounted elsewhere too (`zfs destroy` and `zfs rename` would take that mount away from
   *   under whoever uses it), and on zfs-fuse where files are open (the kernel module closes later)
   */
  unmount(dataset: string): Promise<void>;
  /** Where a dataset is mounted once it is: the path is decided by its name. */
  mountpoint(dataset: string): string;
  /** The dataset that is mounted at such a path, or would be; undefined for any other path. */
  datasetAt(path: string): string | undefined;
  /** Properties that a new dataset must get, so that nobody else mounts it. */
  birthProperties(dataset: string): Properties;
  /** Says that a dataset has just been made with them, so that it is mounted nowhere: its first mount need not look. */
  made(dataset: string): void;
  /** Forgets what is known of a dataset's mount, after it was renamed or destroyed. */
  forget(dataset: string): void;
  /**
   * What a call into the files of a mounted dataset answers, waited for no longer than for a `zfs` command.
   * @throws DeadlineExceeded or Unavailable where the pool does not answer; see Patience
   */
  answer<T>(dataset: string, call: () => Promise<T>): Promise<T>;
}

interface Known {
  readonly path: string;
  /** Device number of the mounted file system: another one at the path means that it is mounted no more. */
  readonly device: number;
}

/**
 * The kernel module mounts with mount(2) from `mountpoint=legacy`. zfs-fuse is asked to: see fuse-daemon.ts. Its `zfs` must
 * not mount, neither when it makes a dataset nor when a pool with thousands is imported: `canmount=off`. The mountpoint
 * property says where we do; a name below the root gives it, so that it holds under another pool name and after a rename.
 */
export class ZfsMounter implements Mounter {
  readonly #zfs: Zfs;
  readonly #root: string;
  readonly #directory: string;
  readonly #known = new Map<string, Known>();
  readonly #pending = new Map<string, Promise<string>>();
  /** Datasets that have the properties that they need, and were never mounted. */
  readonly #born = new Set<string>();
  readonly #patience: Patience;

  /**
   * @param directory where mount points are made; it is created with mode 0700
   * @param timeoutMs milliseconds that a mounted file system may take to answer
   */
  constructor(zfs: Zfs, root: string, directory: string, timeoutMs = DEFAULT_TIMEOUT_MS) {
    this.#zfs = zfs;
    this.#root = root;
    this.#directory = directory;
    this.#patience = new Patience(timeoutMs);
  }

  answer<T>(dataset: string, call: () => Promise<T>): Promise<T> {
    return this.#patience.wait(dataset, call);
  }

  /**
   * The mount point of a dataset: one folder, flat, so that no mount lies inside another's files. `+` cannot
   * occur in a dataset's name, so two datasets never share a path.
   */
  mountpoint(dataset: string): string {
    const below = dataset.startsWith(`${this.#root}/`) ? dataset.slice(this.#root.length + 1) : `/${dataset}`;
    return `${this.#directory}/${below.replaceAll('/', '+')}`;
  }

  datasetAt(path: string): string | undefined {
    const leaf = path.startsWith(`${this.#directory}/`) ? path.slice(this.#directory.length + 1) : '';
    if (leaf === '' || leaf.includes('/')) return undefined;
    const below = leaf.replaceAll('+', '/');
    return below.startsWith('/') ? below.slice(1) : `${this.#root}/${below}`;
  }

  birthProperties(dataset: string): Properties {
    if (this.#zfs.kind === 'openzfs') return { mountpoint: 'legacy' };
    return this.#fuseProperties(dataset);
  }

  made(dataset: string): void {
    this.#born.add(dataset);
  }

  async mount(dataset: string): Promise<string> {
    checkDataset(dataset);
    const known = this.#known.get(dataset);
    if (known !== undefined && (await this.#holds(dataset, known))) return known.path;
    const running = this.#pending.get(dataset);
    if (running !== undefined) return running;
    const mounting = this.#mount(dataset).finally(() => this.#pending.delete(dataset));
    this.#pending.set(dataset, mounting);
    return mounting;
  }

  async unmount(dataset: string): Promise<void> {
    const mounts = (await readMountTable()).filter(
      (entry) => isZfs(entry) && (entry.source === dataset || entry.source.startsWith(`${dataset}/`)),
    );
    const ours = mounts.filter((entry) => entry.root === '/' && dirname(entry.target) === this.#directory);
    const other = mounts.find((entry) => !ours.includes(entry));
    if (other !== undefined) {
      throw new Busy(`dataset ${other.source} is in use: it is mounted at ${other.target}`, {
        subject: other.source,
      });
    }
    for (const entry of ours.reverse()) await this.#unmount(entry);
    for (const name of [...this.#known.keys()]) {
      if (name === dataset || name.startsWith(`${dataset}/`)) this.#known.delete(name);
    }
  }

  forget(dataset: string): void {
    this.#known.delete(dataset);
    this.#born.delete(dataset);
  }

  async #mount(dataset: string): Promise<string> {
    const born = this.#born.delete(dataset);
    const found = born ? undefined : await this.#find(dataset);
    if (found !== undefined) return found;
    const path = this.mountpoint(dataset);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    if (this.#zfs.kind === 'openzfs') {
      await mkdir(path, { recursive: true, mode: 0o700 });
      try {
        await mountNow({ type: 'zfs', source: dataset, target: path, options: [] });
      } catch (error) {
        if (hasErrno(error, 'ENOENT'))
          throw new NotFound(`dataset ${dataset} does not exist`, { subject: dataset });
        throw error;
      }
    } else {
      if (!born) await this.#claim(dataset);
      await this.#mountFuse(dataset, path);
    }
    const [{ dev }, above] = await this.answer(dataset, () =>
      Promise.all([lstat(path), lstat(this.#directory)]),
    );
    if (dev === above.dev) throw new NotFound(`dataset ${dataset} cannot be mounted`, { subject: dataset });
    this.#known.set(dataset, { path, device: dev });
    return path;
  }

  async #mountFuse(dataset: string, path: string): Promise<void> {
    await this.#clearStale(dataset, path);
    await mkdir(path, { recursive: true, mode: 0o700 });
    for (const wait of [...REMOUNT_MS, undefined]) {
      try {
        return await this.#zfs.mount(dataset, path);
      } catch (error) {
        if (!(error instanceof Busy) || wait === undefined) throw error;
        await sleep(wait); // an unmount takes effect a little after it has returned
      }
    }
  }

  /** A dataset from elsewhere (received, renamed, adopted) may name any mount point, /etc included. */
  async #claim(dataset: string): Promise<void> {
    const wanted = Object.entries(this.#fuseProperties(dataset));
    const [row] = await this.#zfs.list({
      root: dataset,
      depth: 0,
      types: ['filesystem'],
      properties: wanted.map(([name]) => name),
    });
    const missing = wanted.filter(([name, value]) => row?.properties.get(name)?.value !== value);
    // canmount is first: with it, a change of the mount point mounts nothing.
    await this.#zfs.set(dataset, Object.fromEntries(missing));
  }

  #fuseProperties(dataset: string): Properties {
    return { canmount: 'off', mountpoint: this.mountpoint(dataset) };
  }

  /** A mount whose daemon is gone answers ENOTCONN and blocks its path. */
  async #clearStale(dataset: string, path: string): Promise<void> {
    try {
      await this.answer(dataset, () => lstat(path));
    } catch (error) {
      if (hasErrno(error, 'ENOTCONN')) await unmountNow(path, { detach: true });
    }
  }

  /** Where a dataset is mounted as a whole now; stale mounts of a dead zfs-fuse are taken away on the way. */
  async #find(dataset: string): Promise<string | undefined> {
    const entries = (await readMountTable()).filter(
      (entry) => isZfs(entry) && entry.source === dataset && entry.root === '/',
    );
    for (const entry of entries.reverse()) {
      try {
        const { dev } = await this.answer(dataset, () => lstat(entry.target));
        this.#known.set(dataset, { path: entry.target, device: dev });
        return entry.target;
      } catch (error) {
        if (!hasErrno(error, 'ENOTCONN')) continue;
        await unmountNow(entry.target, { detach: true });
      }
    }
    return undefined;
  }

  async #holds(dataset: string, { path, device }: Known): Promise<boolean> {
    try {
      return (await this.answer(dataset, () => lstat(path))).dev === device;
    } catch (error) {
      if (error instanceof DeadlineExceeded || error instanceof Unavailable) throw error;
      return false;
    }
  }

  /**
   * zfs-fuse dies a kind of death when the last mount of a dataset goes while it has not yet read that a file
   * was closed: the kernel then drops that message, and the daemon waits for it for ever, holding the lock that
   * all its file systems need. So files must be closed (no lazy unmount), and the daemon must have answered
   * something that was asked after.
   */
  async #unmount({ target, type, source }: MountEntry): Promise<void> {
    const fuse = type === 'fuse.zfs';
    if (fuse) await this.answer(source, () => settle(target));
    try {
      await unmountNow(target, { detach: !fuse });
    } catch (error) {
      if (hasErrno(error, 'EBUSY'))
        throw new Busy(`dataset ${source} is in use: ${target} is busy`, { subject: source });
      if (!hasErrno(error, 'EINVAL') && !hasErrno(error, 'ENOENT')) throw error;
    }
    await rmdir(target).catch(() => undefined); // an empty folder left behind does no harm
  }
}

/** Messages about closed files wait in a queue of their own, so one answer alone proves little. */
async function settle(path: string): Promise<void> {
  for (const wait of [SETTLE_MS, 0]) {
    await statfs(path).catch((error: unknown) => {
      if (!hasErrno(error, 'ENOTCONN')) throw error;
    });
    if (wait > 0) await sleep(wait);
  }
}

function isZfs(entry: MountEntry): boolean {
  return entry.type === 'zfs' || entry.type === 'fuse.zfs';
}
