import { existsSync, readFileSync } from 'node:fs';
import { access, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, NotFound } from '../errors.ts';

/**
 * Where a container's processes are accounted. In v2 there is one folder; in v1 and in hybrid (v1 controllers beside an
 * empty v2 tree) each controller has one of its own. The kernel's documents: admin-guide/cgroup-v1 and cgroup-v2.rst.
 */
export interface Cgroup {
  readonly version: 1 | 2;
  /** Path inside the hierarchy, as /proc/PID/cgroup shows it: `/default/web`. In v1 that of `memory`, or else any. */
  readonly path: string;
  /** Folder by controller name (`memory`, `freezer`, …); in v2 every controller's is the same, under the name ``. */
  readonly folders: ReadonlyMap<string, string>;
}

/** Folder of a controller, or undefined where it is not mounted. */
export function folderOf(cgroup: Cgroup, controller: string): string | undefined {
  return cgroup.folders.get(cgroup.version === 2 ? '' : controller);
}

/** Every folder of the cgroup, once. */
export function foldersOf(cgroup: Cgroup): string[] {
  return [...new Set(cgroup.folders.values())];
}

/**
 * The cgroup of a container's process, from /proc/PID/cgroup and our own mounts (cgroups(7), proc(5)). Read on this thread,
 * as the kernel answers from memory. A hierarchy in whose root the process is does not count: all of the host's processes
 * are there, none of which may be frozen, killed or cleared away with a container.
 * @throws NotFound when the process is gone, or is in no cgroup of its own in any hierarchy that is mounted
 */
export async function findCgroup(pid: number): Promise<Cgroup> {
  const membership = membershipOf(pid);
  // A host with a hundred containers has hundreds of mounts, and those of cgroups hardly ever change.
  const hierarchies = membership.replace(/^(\d+:[^:]*):.*$/gm, '$1');
  if (lately?.hierarchies === hierarchies) {
    const found = resolveMembership(membership, lately.mounts);
    if (found !== undefined && foldersOf(found).every((folder) => existsSync(folder))) return found;
  }
  const mounts = parseMounts(readFileSync('/proc/self/mountinfo', 'utf8'));
  lately = { hierarchies, mounts };
  const found = resolveMembership(membership, mounts);
  if (found === undefined)
    throw new NotFound(
      `process ${pid} is in no cgroup of its own: in those hierarchies that are mounted it is in the root, with the host's processes`,
    );
  return found;
}

/** The folder of a cgroup that this process is in, of whichever hierarchy: the root's too. Undefined where none is mounted. */
export function ownFolder(): string | undefined {
  const mounts = parseMounts(readFileSync('/proc/self/mountinfo', 'utf8'));
  for (const { controllers, path } of parseMembership(membershipOf(process.pid))) {
    const mount = mounts.find((candidate) => candidate.controllers.includes(controllers[0] ?? ''));
    const folder = mount === undefined ? undefined : inside(mount, path);
    if (folder !== undefined) return folder;
  }
  return undefined;
}

/** The mounts that were found last, and the hierarchies that there were then. */
let lately: { hierarchies: string; mounts: readonly CgroupMount[] } | undefined;

function membershipOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ESRCH'))
      throw new NotFound(`process ${pid} does not exist`);
    throw error;
  }
}

/** The pure part of `findCgroup`: texts in, folders out. */
export function resolveCgroup(membership: string, mountinfo: string): Cgroup | undefined {
  return resolveMembership(membership, parseMounts(mountinfo));
}

function resolveMembership(membership: string, mounts: readonly CgroupMount[]): Cgroup | undefined {
  const folders = new Map<string, string>();
  const paths = new Map<string, string>();
  let unified: { path: string; folder: string } | undefined;
  for (const { controllers, path } of parseMembership(membership)) {
    for (const controller of controllers) {
      const mount = mounts.find((candidate) => candidate.controllers.includes(controller));
      const folder = mount === undefined || mount.root === path ? undefined : inside(mount, path);
      if (folder === undefined) continue;
      if (controller === '') unified = { path, folder };
      else {
        folders.set(controller, folder);
        paths.set(controller, path);
      }
    }
  }
  if (folders.size > 0) {
    const path = paths.get('memory') ?? paths.get('freezer') ?? [...paths.values()][0] ?? '/';
    return { version: 1, path, folders };
  }
  return unified && { version: 2, path: unified.path, folders: new Map([['', unified.folder]]) };
}

/** The lines of /proc/PID/cgroup: `hierarchy-id:controllers:path`, and a path may hold colons. */
function parseMembership(membership: string): { controllers: string[]; path: string }[] {
  return membership.split('\n').flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    return controllers === undefined || path === undefined
      ? []
      : [{ controllers: controllers.split(','), path }];
  });
}

/**
 * Moves a process into an existing cgroup, in every hierarchy that has one of that path: cgroups(7).
 * @throws NotFound where no hierarchy has
 */
export async function joinCgroup(path: string, pid: number): Promise<void> {
  let joined = false;
  for (const folder of foldersAt(path, await readFile('/proc/self/mountinfo', 'utf8'))) {
    try {
      await writeFile(join(folder, 'cgroup.procs'), String(pid), { flag: 'r+' });
      joined = true;
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw error;
    }
  }
  if (!joined) throw new NotFound(`there is no cgroup ${path}`, { subject: path });
}

/** Where a cgroup of this path would be: in v2's one hierarchy, or in each of v1's. */
export function foldersAt(path: string, mountinfo: string): string[] {
  const mounts = parseMounts(mountinfo);
  const v1 = mounts.filter(({ controllers }) => !controllers.includes(''));
  const folders = (v1.length > 0 ? v1 : mounts).map((mount) => inside(mount, path));
  return [...new Set(folders.filter((folder) => folder !== undefined))];
}

/**
 * Where each hierarchy is mounted whole, by its controllers as /proc/self/cgroup names them (`cpu,cpuacct`; `` for v2's).
 * @returns undefined where one of them is not
 */
export function mountedHierarchies(): ReadonlyMap<string, string> | undefined {
  return hierarchiesOf(
    readFileSync('/proc/self/cgroup', 'utf8'),
    readFileSync('/proc/self/mountinfo', 'utf8'),
  );
}

/**
 * The first hierarchy of this process's list that is mounted nowhere, without that of one controller.
 * @returns its controllers as /proc/self/cgroup names them; undefined where the first is mounted, and where v2 is the host's
 */
export function firstUnmounted(
  without: string,
  membership = readFileSync('/proc/self/cgroup', 'utf8'),
  mountinfo = readFileSync('/proc/self/mountinfo', 'utf8'),
): string | undefined {
  const mounts = parseMounts(mountinfo);
  if (mounts.some(({ controllers, folder }) => controllers[0] === '' && folder === '/sys/fs/cgroup'))
    return undefined;
  const [first] = parseMembership(membership).filter(({ controllers }) => controllers.join(',') !== without);
  const [controller] = first?.controllers ?? [];
  if (first === undefined || controller === undefined) return undefined;
  return mounts.some(({ controllers }) => controllers.includes(controller))
    ? undefined
    : first.controllers.join(',');
}

/** The pure part of `mountedHierarchies`. */
export function hierarchiesOf(membership: string, mountinfo: string): Map<string, string> | undefined {
  const mounts = parseMounts(mountinfo).filter(({ root }) => root === '/');
  const found = new Map<string, string>();
  for (const line of membership.trimEnd().split('\n')) {
    const controllers = /^\d+:([^:]*):/.exec(line)?.[1];
    if (controllers === undefined) return undefined;
    const [first = ''] = controllers.split(',');
    const mount = mounts.find((candidate) => candidate.controllers.includes(first));
    if (mount === undefined) return undefined;
    found.set(controllers, mount.folder);
  }
  return found;
}

/**
 * The cgroup of a path, for when none of its processes is known.
 * @returns undefined where no hierarchy has one
 */
export async function cgroupAt(path: string): Promise<Cgroup | undefined> {
  const own = await readFile('/proc/self/cgroup', 'utf8');
  const membership = own.replace(/^(\d+:[^:\n]*:).*$/gm, (_, head: string) => head + path);
  const found = resolveCgroup(membership, await readFile('/proc/self/mountinfo', 'utf8'));
  if (found === undefined) return undefined;
  const exist = await Promise.all(
    [...found.folders].map(async (entry) =>
      access(entry[1]).then(
        () => [entry],
        () => [],
      ),
    ),
  );
  const folders = new Map(exist.flat());
  return folders.size === 0 ? undefined : { ...found, folders };
}

/**
 * The processes right in the cgroup of a path, looked for in one hierarchy. On this thread, as the kernel answers from memory.
 * @returns none where there is no such cgroup
 */
export function pidsAt(path: string): number[] {
  lately ??= { hierarchies: '', mounts: parseMounts(readFileSync('/proc/self/mountinfo', 'utf8')) };
  const { mounts } = lately;
  const mount = mounts.find(({ controllers }) => controllers.includes('freezer')) ?? mounts[0];
  const folder = mount === undefined ? undefined : inside(mount, path);
  if (folder === undefined) return [];
  try {
    return readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENODEV')) return [];
    throw error;
  }
}

interface CgroupMount {
  /** `['']` for cgroup2; `name=systemd` counts as a controller. */
  readonly controllers: readonly string[];
  readonly root: string;
  readonly folder: string;
}

function parseMounts(mountinfo: string): CgroupMount[] {
  const mounts: CgroupMount[] = [];
  for (const line of mountinfo.split('\n')) {
    // id parent major:minor root mountpoint options [optional…] - type source superoptions
    const [before, after] = line.split(' - ', 2);
    const [type, , options] = after?.split(' ') ?? [];
    const [, , , root, folder] = before?.split(' ') ?? [];
    if (root === undefined || folder === undefined) continue;
    const place = { root: unescape(root), folder: unescape(folder) };
    if (type === 'cgroup2') mounts.push({ controllers: [''], ...place });
    if (type === 'cgroup') mounts.push({ controllers: (options ?? '').split(','), ...place });
  }
  return mounts;
}

/** mountinfo writes blanks and backslashes as octal escapes. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

/** A mount may show only a part of its hierarchy (`root`), as inside containers. */
function inside(mount: CgroupMount, path: string): string | undefined {
  if (mount.root === '/') return join(mount.folder, path);
  if (path !== mount.root && !path.startsWith(`${mount.root}/`)) return undefined;
  return join(mount.folder, path.slice(mount.root.length));
}

/**
 * Process ids in a cgroup and in those below it (systemd or another container engine inside makes some). A cgroup that
 * is gone has none.
 */
export async function cgroupPids(cgroup: Cgroup): Promise<number[]> {
  const folder = folderOf(cgroup, 'freezer') ?? folderOf(cgroup, 'pids') ?? foldersOf(cgroup)[0];
  return folder === undefined ? [] : pidsBelow(folder);
}

export async function pidsBelow(folder: string): Promise<number[]> {
  const [own, below] = await Promise.all([
    readFile(join(folder, 'cgroup.procs'), 'utf8').catch(() => ''),
    subfolders(folder),
  ]);
  const deeper = await Promise.all(below.map((child) => pidsBelow(child)));
  // A pid of 0 stands for a process of another pid namespace.
  const pids = own.split('\n').map(Number);
  return [...pids.filter((pid) => pid > 0), ...deeper.flat()];
}

/** The cgroups directly below a folder; none where it is gone. */
export async function subfolders(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(folder, entry.name));
}
