// Id-mapped mounts: files of a mount appear to belong to other users than their file system says.
import { closeSync, openSync } from 'node:fs';
import { readlink, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidArgument } from '../errors.ts';
import { exec } from './command.ts';
import { check, checkInBackground, native } from './libc.ts';

// open_tree(2), mount_setattr(2), move_mount(2); user_namespaces(7)
const openTree = native<[number, string, number]>(
  'int open_tree(int dirfd, const char *path, unsigned int flags)',
);
const mountSetattr = native<[number, string, number, Buffer, number]>(
  'int mount_setattr(int dirfd, const char *path, unsigned int flags, void *attributes, size_t size)',
);
const moveMount = native<[number, string, number, string, number]>(
  'int move_mount(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned int flags)',
);

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_RDONLY = 1n;
const MOUNT_ATTR_IDMAP = 0x0010_0000n;
/** struct mount_attr: attr_set, attr_clr, propagation, userns_fd, 64 bits each. */
const ATTRIBUTES_SIZE = 32;

/** Which ids of a file system appear as which: each side `first:appears as:how many`, with commas between. */
export interface IdMappings {
  readonly uids: string;
  readonly gids: string;
}

const MAX_ID = 0xffff_ffff;
/** Lines that the kernel takes of a map. */
const MAX_RANGES = 340;

/** @throws InvalidArgument for what is no mapping */
function mapLines(kind: string, text: string): string {
  const ranges = text.split(',').map((range) => {
    const numbers = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(range)?.slice(1).map(Number) ?? [];
    const [inner = -1, outer = -1, count = 0] = numbers;
    return inner >= 0 && count > 0 && inner + count - 1 < MAX_ID && outer + count - 1 < MAX_ID
      ? `${inner} ${outer} ${count}\n`
      : undefined;
  });
  if (ranges.includes(undefined) || ranges.length > MAX_RANGES) {
    throw new InvalidArgument(`${JSON.stringify(text)} is no mapping of ${kind}s`, {
      subject: `${kind}map`,
      remedy: 'give ID:HOST_ID:COUNT, with commas between several',
    });
  }
  return ranges.join('');
}

/** @throws InvalidArgument for what is no mapping */
export function checkMappings({ uids, gids }: IdMappings): void {
  mapLines('uid', uids);
  mapLines('gid', gids);
}

/** Longer than any machine takes to start a program; it is ended long before. */
const HELPER_SECONDS = '60';
const POLL_MS = 1;

/**
 * Runs `work` with a descriptor of a user namespace that has these mappings. Only a process can have one, and a process of
 * several threads cannot move into it: so a program is started for a moment.
 * @throws InvalidArgument for what is no mapping; Error where the kernel makes no user namespace
 */
async function withUserNamespace<T>(mappings: IdMappings, work: (fd: number) => Promise<T>): Promise<T> {
  const uids = mapLines('uid', mappings.uids);
  const gids = mapLines('gid', mappings.gids);
  const ended = new AbortController();
  const started = Promise.withResolvers<number>();
  const helper = exec('unshare', ['--user', 'sleep', HELPER_SECONDS], {
    signal: ended.signal,
    onStart: started.resolve,
  }).then(({ stderr, spawnError }) => {
    throw new Error(`the kernel made no user namespace: ${spawnError ?? stderr.trim()}`);
  });
  helper.catch(() => undefined);
  try {
    const pid = await Promise.race([started.promise, helper]);
    const own = await readlink('/proc/self/ns/user');
    while ((await Promise.race([readlink(`/proc/${pid}/ns/user`), helper])) === own) await sleep(POLL_MS);
    await writeFile(`/proc/${pid}/uid_map`, uids);
    await writeFile(`/proc/${pid}/gid_map`, gids);
    const fd = openSync(`/proc/${pid}/ns/user`, 'r');
    try {
      return await work(fd);
    } finally {
      closeSync(fd);
    }
  } finally {
    ended.abort();
    await helper.catch(() => undefined);
  }
}

/** A copy of the mounts at a path, mapped, that is nowhere yet. @returns its descriptor, for the caller to close */
async function mappedCopy(
  path: string,
  userns: number,
  attributes: bigint,
  recursive: boolean,
): Promise<number> {
  const depth = recursive ? AT_RECURSIVE : 0;
  const tree = check(
    'open_tree',
    openTree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth),
    path,
  );
  try {
    const attr = Buffer.alloc(ATTRIBUTES_SIZE);
    attr.writeBigUInt64LE(MOUNT_ATTR_IDMAP | attributes, 0);
    attr.writeBigUInt64LE(BigInt(userns), 24);
    const args: [number, string, number, Buffer, number] = [
      tree,
      '',
      AT_EMPTY_PATH | depth,
      attr,
      attr.length,
    ];
    await checkInBackground('mount_setattr', mountSetattr, args, `${path}, to map its ids`);
    return tree;
  } catch (error) {
    closeSync(tree);
    throw error;
  }
}

/** Somewhere to mount, and whose files appear there. */
export interface MappedMount {
  readonly source: string;
  readonly target: string;
}

/**
 * Mounts what is at each `source` at its `target` too, with other owners. `recursive`: with all that is mounted below it;
 * `replacing`: called when the copy is made, to take away what it was made of.
 * @throws SysError EINVAL where a file system, EOPNOTSUPP or ENOSYS where the kernel, cannot map ids
 */
export async function mountMapped(
  mappings: IdMappings,
  mounts: readonly MappedMount[],
  options: { readonly?: boolean; recursive?: boolean; replacing?: (target: string) => Promise<void> } = {},
): Promise<void> {
  const attributes = options.readonly === true ? MOUNT_ATTR_RDONLY : 0n;
  await withUserNamespace(mappings, async (userns) => {
    for (const { source, target } of mounts) {
      const tree = await mappedCopy(source, userns, attributes, options.recursive ?? false);
      try {
        await options.replacing?.(target);
        check('move_mount', moveMount(tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), target);
      } finally {
        closeSync(tree);
      }
    }
  });
}

/** Whether the file system at a path can map ids on this kernel: tried, with a copy that goes again at once. */
export async function canMapIds(path: string): Promise<boolean> {
  const everybody = { uids: '0:100000:65536', gids: '0:100000:65536' };
  try {
    await withUserNamespace(everybody, async (userns) => {
      closeSync(await mappedCopy(path, userns, 0n, false));
    });
    return true;
  } catch {
    return false;
  }
}
