import { constants } from 'node:os';
import { check, checkInBackground, lastErrno, native } from './libc.ts';
import { mountFrom, type MountCall } from './mount-from.ts';

// mount(2), umount(2), mount(8) for the names of options
const mountCall = native<[string, string, string, number, string | null]>(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);
const umount2 = native<[string, number]>('int umount2(const char *target, int flags)');

const { errno } = constants;
const MS_RDONLY = 1;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16384;
const MNT_DETACH = 2;
const MNT_EXPIRE = 4;
const UMOUNT_NOFOLLOW = 8;

const setting: Readonly<Record<string, number>> = {
  async: 0,
  atime: 0,
  defaults: 0,
  dev: 0,
  diratime: 0,
  exec: 0,
  rw: 0,
  suid: 0,
  ro: MS_RDONLY,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  sync: 16,
  remount: MS_REMOUNT,
  mand: 64,
  dirsync: 128,
  noatime: 1024,
  nodiratime: 2048,
  bind: MS_BIND,
  rbind: MS_BIND | MS_REC,
  relatime: 1 << 21,
  iversion: 1 << 23,
  strictatime: 1 << 24,
  lazytime: 1 << 25,
};

/** How mounts spread to other namespaces is set by a call of its own. */
const spreading: Readonly<Record<string, number>> = {
  unbindable: 1 << 17,
  runbindable: (1 << 17) | MS_REC,
  private: 1 << 18,
  rprivate: (1 << 18) | MS_REC,
  slave: 1 << 19,
  rslave: (1 << 19) | MS_REC,
  shared: 1 << 20,
  rshared: (1 << 20) | MS_REC,
};

/** Later options take these flags of earlier ones away again. */
const clearing: Readonly<Record<string, number>> = {
  rw: MS_RDONLY,
  suid: 2,
  dev: 4,
  exec: 8,
  async: 16,
  nomand: 64,
  atime: 1024,
  diratime: 2048,
  norelatime: 1 << 21,
  noiversion: 1 << 23,
  nostrictatime: 1 << 24,
};

export interface Mount {
  readonly type: string;
  readonly source: string;
  readonly target: string;
  readonly options: readonly string[];
}

export interface MountArguments {
  readonly flags: number;
  readonly propagation: number;
  /** What the file system itself reads, comma-separated. */
  readonly data: string;
}

/**
 * Sorts options, as mount(8) names them, into the flags of mount(2) and what is left for the file system.
 * @throws Error for `X-containerd.*`, which only containerd's own mount manager can perform, and for id mappings
 */
export function mountArguments(options: readonly string[]): MountArguments {
  let flags = 0;
  let propagation = 0;
  const data: string[] = [];
  for (const option of options) {
    // A bind would drop an id mapping without a word, and files would belong to the wrong users.
    if (option.startsWith('X-containerd.') || /^[ug]idmap=/.test(option))
      throw new Error(`mount option ${option} cannot be performed here`);
    const cleared = clearing[option];
    const set = setting[option];
    const spread = spreading[option];
    if (cleared !== undefined) flags &= ~cleared;
    if (set !== undefined) flags |= set;
    if (spread !== undefined) propagation = spread;
    if (cleared === undefined && set === undefined && spread === undefined) data.push(option);
  }
  return { flags, propagation, data: data.join(',') };
}

/** What mount(2) reads of its last argument: one page, with the final zero. */
const MAX_DATA = 4095;

/**
 * Options of an overlay that are too long for mount(2), with its lower folders relative to the one that holds them all.
 * @returns undefined where there is no such folder
 */
export function shortenOverlay(data: string): { folder: string; data: string } | undefined {
  const options = data.split(',');
  const lowers = options
    .find((option) => option.startsWith('lowerdir='))
    ?.slice('lowerdir='.length)
    .split(':');
  if (lowers === undefined || lowers.some((lower) => !lower.startsWith('/') || lower.endsWith('\\')))
    return undefined;
  const [first = [], ...others] = lowers.map((lower) => lower.split('/').slice(0, -1));
  const differs = first.findIndex((part, at) => others.some((other) => other[at] !== part));
  const folder = (differs === -1 ? first : first.slice(0, differs)).join('/');
  if (folder === '') return undefined;
  const relative = `lowerdir=${lowers.map((lower) => lower.slice(folder.length + 1)).join(':')}`;
  return {
    folder,
    data: options.map((option) => (option.startsWith('lowerdir=') ? relative : option)).join(','),
  };
}

/**
 * Performs one mount. A bind with further flags takes a second call, since the kernel ignores them in the first.
 * @throws SysError naming source, type and target
 */
export async function mount(entry: Mount): Promise<void> {
  const { flags, propagation, data } = mountArguments(entry.options);
  const subject = `${entry.source} (${entry.type}) on ${entry.target}`;
  const call = (type: string, with_: number, text: string | null): Promise<number> =>
    checkInBackground('mount', mountCall, [entry.source, entry.target, type, with_, text], subject);
  const isBind = (flags & MS_BIND) !== 0;
  const short = entry.type === 'overlay' && data.length > MAX_DATA ? shortenOverlay(data) : undefined;
  if (short !== undefined) await mountFrom(short.folder, { ...entry, flags, data: short.data }, subject);
  else await call(entry.type, flags, isBind ? null : data);
  if (isBind && (flags & ~(MS_BIND | MS_REC)) !== 0) await call('', flags | MS_REMOUNT, null);
  if (propagation !== 0) await call('', propagation, null);
}

/**
 * Mounts a tmpfs on the calling thread: nothing that the kernel would wait for, and done before one of libuv's threads wakes up.
 * @throws SysError naming source and target
 */
export function mountTmpfs(entry: Omit<Mount, 'type'>): void {
  const { flags, data } = mountArguments(entry.options);
  const subject = `${entry.source} (tmpfs) on ${entry.target}`;
  check('mount', mountCall(entry.source, entry.target, 'tmpfs', flags, data), subject);
}

/**
 * Takes the topmost mount of a path away, without following a symbolic link. `detach`: at once, even while in use.
 * @throws SysError EINVAL when nothing is mounted there, ENOENT, EBUSY
 */
export async function unmount(target: string, options: { detach?: boolean } = {}): Promise<void> {
  const flags = UMOUNT_NOFOLLOW | (options.detach === true ? MNT_DETACH : 0);
  await checkInBackground('umount2', umount2, [target, flags], target);
}

/** The same on the calling thread, for processes that are about to exit. */
export function unmountNow(target: string): void {
  check('umount2', umount2(target, UMOUNT_NOFOLLOW | MNT_DETACH), target);
}

/**
 * Whether something is mounted at a path, without asking what is mounted there: it may not answer. umount(2) with MNT_EXPIRE takes nothing away the
 * first time that it is called for a mount, nor waits. Asked again for one that nobody has used since it would: to be called of what
 * is to be unmounted anyway.
 */
export function isMountPoint(path: string): boolean {
  if (umount2(path, UMOUNT_NOFOLLOW | MNT_EXPIRE) === 0) return true;
  return [errno.EAGAIN, errno.EBUSY].includes(lastErrno());
}

/**
 * One call of mount(2) on the calling thread, for threads that have nothing else to do.
 * @throws SysError
 */
export function mountNow({ source, target, type, flags, data }: MountCall): void {
  check('mount', mountCall(source, target, type, flags, data), target);
}
