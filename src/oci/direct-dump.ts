// CRIU's dump of a container of runc's, without runc.
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pidsBelow } from '../sys/cgroup.ts';
import { parseMountTable } from '../sys/mount-table.ts';
import type { CheckpointOptions, PreDumpOptions } from './types.ts';

/**
 * `runc checkpoint` starts CRIU twice (the first time to ask for its version) and itself, and all three while the container
 * stands still: a third of a small container's frozen time. What it tells CRIU is in its state file, so for a usual
 * container we can do so ourselves; runc restores such an image as its own. Whatever is out of the usual is left to runc:
 * terminals, user namespaces, cgroup mounts outside a cgroup namespace, a CRIU configuration of the user's.
 *
 * A container whose network namespace has no TCP socket, so that nothing in it has to be locked, is dumped from inside of that:
 * CRIU goes through the kernel's table of connections twice for each namespace but its own (conntrack, for an image that
 * `--empty-ns net` leaves unread), and half of a small container's dump is that where the host's table is large.
 *
 * /proc is read on this thread: the kernel answers from memory, the container stands still meanwhile, and
 * each trip through libuv's threads takes longer than the call. What may lie on the container's disk, or where a client says,
 * is not.
 */
export interface DirectDump {
  /** Arguments for `criu`: criu(8). */
  readonly args: readonly string[];
  /** The process into whose network namespace CRIU goes; the image is to be told so: criu/own-network.ts. */
  readonly networkOf?: number;
}

/** Where runc looks for options of the administrator's; the annotation names another file. */
const userConfig = '/etc/criu/runc.conf';
const configAnnotation = 'org.criu.config=';

/** What is used of runc's state.json. Its form has been the same since runc 1.0. */
interface RuncState {
  readonly init_process_pid: number;
  readonly external_descriptors: readonly string[];
  readonly cgroup_paths: Readonly<Record<string, string>>;
  readonly config: {
    readonly rootfs: string;
    readonly labels: readonly string[] | null;
    readonly mask_paths: readonly string[] | null;
    readonly uid_mappings: readonly unknown[] | null;
    readonly mounts: readonly { readonly destination: string; readonly device: string }[] | null;
    readonly namespaces: readonly { readonly type: string; readonly path: string }[];
  };
}

/**
 * What to tell CRIU for a dump that leaves the container running, with descriptors.json written as runc's restore reads it.
 * @param root runc's state folder
 * @returns undefined where the dump is better left to runc
 */
export async function directDump(root: string, options: CheckpointOptions): Promise<DirectDump | undefined> {
  if (isUnusual(options)) return undefined;
  const state = await usualState(root, options.id);
  if (state === undefined) return undefined;
  const { config, init_process_pid: pid } = state;
  if (state.external_descriptors.some((name) => !/^(\/dev\/null|pipe:\[\d+\])$/.test(name))) return undefined;
  const mounts = await externalMounts(config, pid);
  const namespaces = await externalNamespaces(config.namespaces);
  const freezer = state.cgroup_paths['freezer'] ?? state.cgroup_paths[''];
  if (mounts === undefined || namespaces === undefined || freezer === undefined) return undefined;
  const pids = await pidsBelow(freezer);
  const open = openFiles(pids);
  // The other end of most terminals is held outside, which CRIU accepts only of a caller that says so in its protocol
  // (`orphan_pts_master`), as runc does; its command line has no such option.
  if (open.some((target) => /^\/dev\/(pts\/|tty|console)/.test(target))) return undefined;
  const inside = options.networkIdle === true && hasOneNetwork(config, pids, open);
  const descriptors = JSON.stringify(state.external_descriptors);
  await writeFile(join(options.imageDir, 'descriptors.json'), descriptors, { mode: 0o600 });
  return {
    args: [
      ...['dump', '--tree', String(pid), '--leave-running'],
      ...['--images-dir', options.imageDir, '--work-dir', options.workDir, '--log-file', 'dump.log', '-v4'],
      ...['--root', config.rootfs, '--manage-cgroups=soft', '--freeze-cgroup', freezer],
      // As runc does always: what is in a network namespace is its maker's to bring back.
      ...(inside ? [] : ['--empty-ns', 'net']),
      ...(options.tcpEstablished === true ? ['--tcp-established'] : []),
      ...(options.extUnixSk === true ? ['--ext-unix-sk'] : []),
      ...(options.fileLocks === true ? ['--file-locks'] : []),
      ...trackedSince(options.parentPath),
      ...[...mounts, ...namespaces].flatMap((external) => ['--external', external]),
    ],
    ...(inside ? { networkOf: pid } : {}),
  };
}

/**
 * What to tell CRIU for a copy of the memory of a container that runs on. Without its cgroup's freezer: CRIU then stops one
 * process after the other, each until its pages are held, and a CRIU that is killed leaves nothing frozen. The pages need not
 * be of one moment, as those that change meanwhile are copied again.
 * @param root runc's state folder
 * @returns undefined for a container that the dump itself would leave to runc, terminals aside
 */
export async function directPreDump(root: string, options: PreDumpOptions): Promise<DirectDump | undefined> {
  const state = await usualState(root, options.id);
  if (state === undefined) return undefined;
  const { config, init_process_pid: pid } = state;
  const namespaces = await externalNamespaces(config.namespaces);
  if (namespaces === undefined) return undefined;
  return {
    args: [
      ...['pre-dump', '--tree', String(pid), '--images-dir', options.imageDir, '--work-dir', options.workDir],
      ...['--log-file', 'pre-dump.log', '-v4', '--root', config.rootfs, '--empty-ns', 'net'],
      ...trackedSince(options.parentPath ?? ''),
      ...namespaces.flatMap((external) => ['--external', external]),
    ],
  };
}

/** Has the kernel note which pages change from now on, and leaves out those that have not since the image before. */
function trackedSince(parentPath: string | undefined): string[] {
  if (parentPath === undefined) return [];
  return ['--track-mem', ...(parentPath === '' ? [] : ['--prev-images-dir', parentPath])];
}

/** What runc knows of a container that has nothing which only runc would tell CRIU. */
async function usualState(root: string, id: string): Promise<RuncState | undefined> {
  if (exists(userConfig)) return undefined;
  const state = await readState(join(root, id, 'state.json'));
  if (state === undefined) return undefined;
  const { config } = state;
  if ((config.uid_mappings ?? []).length > 0) return undefined;
  if ((config.labels ?? []).some((label) => label.startsWith(configAnnotation))) return undefined;
  return state;
}

/** Options that a usual checkpoint does not have. */
function isUnusual(options: CheckpointOptions): boolean {
  const { leaveRunning, shellJob, manageCgroupsMode, emptyNs, parentPath, statusFd } = options;
  if (!leaveRunning || shellJob === true) return true;
  if (parentPath?.startsWith('/') === true) return true; // runc says what is wrong with that
  return [manageCgroupsMode, statusFd].some((value) => value !== undefined) || (emptyNs ?? []).length > 0;
}

async function readState(path: string): Promise<RuncState | undefined> {
  try {
    const state = JSON.parse(await readFile(path, 'utf8')) as Partial<RuncState>;
    const { config, init_process_pid: pid, external_descriptors: descriptors, cgroup_paths: cgroups } = state;
    const known =
      typeof config?.rootfs === 'string' &&
      Array.isArray(config.namespaces) &&
      typeof pid === 'number' &&
      pid > 0 &&
      Array.isArray(descriptors) &&
      descriptors.length === 3 &&
      typeof cgroups === 'object';
    return known ? (state as RuncState) : undefined;
  } catch {
    return undefined; // another version's, or none
  }
}

/**
 * Mounts that come from outside, as runc names them: binds by their destination, masked files by /dev/null.
 * @returns undefined where a destination leads elsewhere, by a symbolic link say
 */
async function externalMounts(config: RuncState['config'], pid: number): Promise<string[] | undefined> {
  const table = parseMountTable(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'));
  const targets = new Set(table.map(({ target }) => target));
  const named: string[] = [];
  for (const { destination, device } of config.mounts ?? []) {
    if (device === 'cgroup' && !config.namespaces.some(({ type }) => type === 'NEWCGROUP')) return undefined;
    if (device !== 'bind') continue;
    if (!targets.has(destination)) return undefined;
    named.push(`mnt[${destination}]:${destination}`);
  }
  const isFile = (path: string): Promise<boolean> =>
    stat(`/proc/${pid}/root${path}`).then(
      (entry) => !entry.isDirectory(),
      () => false, // nothing there to be masked
    );
  const masked = config.mask_paths ?? [];
  const files = await Promise.all(masked.map(isFile));
  for (const [index, path] of masked.entries())
    if (files[index] === true) named.push(`mnt[${path}]:/dev/null`);
  return named;
}

/** Namespaces that the container was given by path, by the keys that runc restores them by. */
async function externalNamespaces(
  namespaces: RuncState['config']['namespaces'],
): Promise<string[] | undefined> {
  const keys: Readonly<Record<string, string>> = { NEWNET: 'net', NEWPID: 'pid' };
  const named: string[] = [];
  for (const { type, path } of namespaces) {
    const kind = keys[type];
    if (path === '' || kind === undefined) continue;
    const inode = await stat(path).then(
      ({ ino }) => ino,
      () => undefined,
    );
    if (inode === undefined) return undefined;
    named.push(`${kind}[${inode}]:extRoot${kind.charAt(0).toUpperCase()}${kind.slice(1)}NS`);
  }
  return named;
}

/** What the processes have open, as proc_pid_fd(5) names it. */
function openFiles(pids: readonly number[]): string[] {
  return pids.flatMap((pid) => {
    const folder = `/proc/${pid}/fd`;
    return (attempt(() => readdirSync(folder)) ?? []).map(
      (name) => attempt(() => readlinkSync(join(folder, name))) ?? '',
    );
  });
}

/** Whether all processes are in one network namespace that was made with the container, and hold no other. */
function hasOneNetwork(
  { namespaces }: RuncState['config'],
  pids: readonly number[],
  open: readonly string[],
): boolean {
  if (!namespaces.some(({ type, path }) => type === 'NEWNET' && path === '')) return false;
  if (open.some((target) => target.startsWith('net:['))) return false;
  const networks = new Set(pids.map((pid) => attempt(() => readlinkSync(`/proc/${pid}/ns/net`)) ?? ''));
  return networks.size === 1;
}

/** What a process that has gone by now no longer shows is undefined. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function exists(path: string): boolean {
  return attempt(() => statSync(path)) !== undefined;
}
