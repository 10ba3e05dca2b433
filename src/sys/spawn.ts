import { check, native, SysError } from './libc.ts';

// posix_spawn(3), posix_spawn_file_actions_adddup2(3), posix_spawnattr_setflags(3), memfd_create(2). The structures are
// the C library's own; these sizes hold them on glibc and musl alike, for 64-bit machines.
const FILE_ACTIONS_SIZE = 128;
const ATTRIBUTES_SIZE = 512;
const SIGNAL_SET_SIZE = 128;
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const O_RDWR = 2;
const MFD_CLOEXEC = 1;

const posixSpawn = native<
  [number[], string, Buffer, Buffer, readonly (string | null)[], readonly (string | null)[]]
>(
  'int posix_spawn(_Out_ int *pid, const char *path, void *actions, void *attributes, const char **argv, const char **envp)',
);
const initActions = native<[Buffer]>('int posix_spawn_file_actions_init(void *actions)');
const destroyActions = native<[Buffer]>('int posix_spawn_file_actions_destroy(void *actions)');
const addDup2 = native<[Buffer, number, number]>(
  'int posix_spawn_file_actions_adddup2(void *actions, int fd, int as)',
);
const addOpen = native<[Buffer, number, string, number, number]>(
  'int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, unsigned int mode)',
);
const addChdir = native<[Buffer, string]>(
  'int posix_spawn_file_actions_addchdir_np(void *actions, const char *path)',
);
const initAttributes = native<[Buffer]>('int posix_spawnattr_init(void *attributes)');
const setFlags = native<[Buffer, number]>('int posix_spawnattr_setflags(void *attributes, short flags)');
const setDefaultSignals = native<[Buffer, Buffer]>(
  'int posix_spawnattr_setsigdefault(void *attributes, const void *set)',
);
const setSignalMask = native<[Buffer, Buffer]>(
  'int posix_spawnattr_setsigmask(void *attributes, const void *set)',
);
const memfdCreate = native<[string, number]>('int memfd_create(const char *name, unsigned int flags)');

export interface SpawnOptions {
  readonly cwd: string;
  /** What the program is told that it is called; its path where left out. */
  readonly name?: string;
  /** `NAME=value` each. */
  readonly env: readonly string[];
  /** What the program gets as 0, 1 and 2; none of ours that is below 3. */
  readonly stdio: readonly [number | 'ignore', number | 'ignore', number | 'ignore'];
}

/**
 * Starts a program as a child of this process, which nobody but the caller waits for. With the C library's posix_spawn:
 * child_process forks, and to copy the page tables of a process of Node's size takes several milliseconds, in which
 * nothing else runs.
 * @param path with a slash: PATH is not looked at
 * @returns the child's pid
 * @throws SysError ENOENT, EACCES, ENOEXEC of the program or its folder; EAGAIN, ENOMEM
 */
export function spawnProgram(path: string, args: readonly string[], options: SpawnOptions): number {
  const actions = Buffer.alloc(FILE_ACTIONS_SIZE);
  succeed('posix_spawn_file_actions_init', initActions(actions));
  try {
    options.stdio.forEach((fd, at) => {
      if (fd === 'ignore') succeed('addopen', addOpen(actions, at, '/dev/null', O_RDWR, 0));
      else succeed('adddup2', addDup2(actions, fd, at));
    });
    succeed('addchdir', addChdir(actions, options.cwd));
    const pid = [0];
    const argv = [options.name ?? path, ...args, null];
    succeed('posix_spawn', posixSpawn(pid, path, actions, attributes(), argv, [...options.env, null]), path);
    return pid[0] ?? 0;
  } finally {
    destroyActions(actions);
  }
}

let shared: Buffer | undefined;

/** Every signal unblocked and at its default: Node ignores SIGPIPE, and a program would inherit that. */
function attributes(): Buffer {
  if (shared !== undefined) return shared;
  const buffer = Buffer.alloc(ATTRIBUTES_SIZE);
  succeed('posix_spawnattr_init', initAttributes(buffer));
  succeed('setflags', setFlags(buffer, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK));
  succeed('setsigdefault', setDefaultSignals(buffer, Buffer.alloc(SIGNAL_SET_SIZE, 0xff)));
  succeed('setsigmask', setSignalMask(buffer, Buffer.alloc(SIGNAL_SET_SIZE)));
  shared = buffer;
  return buffer;
}

/** These functions answer with the errno itself. */
function succeed(syscall: string, errno: number, subject?: string): void {
  if (errno !== 0) throw new SysError(syscall, errno, subject);
}

/**
 * A file without a name, in memory: takes a program's output, of any length, without anybody reading along.
 * @throws SysError EMFILE, ENFILE, ENOMEM
 */
export function memoryFile(name: string): number {
  return check('memfd_create', memfdCreate(name, MFD_CLOEXEC), name);
}
