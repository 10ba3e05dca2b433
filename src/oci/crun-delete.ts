// The removal of an ended container that crun has made, without crun.
import { readdirSync, readFileSync, rmdirSync, statfsSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { isGone, removeIfThere } from './remains.ts';
import type { RuntimeBinary } from './types.ts';

/** statfs(2) of a cgroup v2. */
const CGROUP2_MAGIC = 0x63677270;
const CGROUP_ROOT = '/sys/fs/cgroup';

/**
 * What crun keeps of a usual container, in the order of removal: without `status` its own `delete` takes the rest away
 * unseen, so that one that was broken off here can be finished there.
 */
const FILES = ['status', 'config.json', 'exec.fifo'];

/** What of crun's `status` is looked at here. */
interface Status {
  readonly pid?: unknown;
  readonly 'cgroup-path'?: unknown;
  readonly scope?: unknown;
  readonly 'systemd-cgroup'?: unknown;
  readonly intelrdt?: unknown;
}

/** What of the container's configuration has something to do at the removal. */
interface Config {
  readonly hooks?: { readonly poststop?: readonly unknown[] } | null;
  readonly linux?: { readonly intelRdt?: unknown } | null;
}

/**
 * Whether `delete` of a crun is the one that `deleteOfCrun` stands for. container_delete_internal, run_poststop_hooks,
 * destroy_cgroup_path and libcrun_container_delete_status were read in 1.8.1, 1.14, 1.21, 1.24, 1.28 and 1.29.1: they differ in messages, and in
 * where a resctrl group is named. Later ones are not known, nor are builds between two releases.
 */
export function knowsDeleteOfCrun({ name, version, wrapped }: RuntimeBinary): boolean {
  const minor = Number(/^1\.(\d+)(?:\.\d+)?$/.exec(version)?.[1]);
  return name === 'crun' && wrapped !== true && minor >= 8 && minor <= 29;
}

/**
 * Takes away what crun has of a container whose first process has ended, as its `delete` does:
 *
 * | here                                       | crun's function                  |
 * | ------------------------------------------ | -------------------------------- |
 * | `status` names that process, and it is gone | libcrun_read_container_status, libcrun_is_container_running |
 * | `config.json` has no poststop hook          | run_poststop_hooks               |
 * | … and no resctrl group                      | libcrun_destroy_intelrdt         |
 * | the cgroup's folders are removed            | libcrun_destroy_cgroup_cgroupfs, destroy_cgroup_path |
 * | the files and the folder are removed        | libcrun_container_delete_status  |
 *
 * A start of crun's own program takes five times as long as all that it then does. Where anything is not as in a usual container, and at
 * any failure, nothing more is done here: whatever is left then, crun's `delete` can take away. So it does where somebody is still in the cgroup, or it
 * has others below it, since the kernel removes no such folder.
 *
 * On the calling thread: all of it is in memory, and a dozen trips through libuv's threads take longer than the rest.
 * @param folder crun's folder for this container
 * @param pid of its first process, which has been waited for
 * @param foldersOf where a cgroup of a path is; as crun finds them by default
 * @returns whether it is done; otherwise the runtime's own `delete` is to do it, or to say what is wrong
 */
export function deleteOfCrun(
  folder: string,
  pid: number,
  foldersOf: (path: string) => readonly string[] = cgroupFolders,
): boolean {
  try {
    const cgroup = usualCgroup(folder, pid);
    if (cgroup === undefined) return false;
    for (const path of foldersOf(cgroup)) removeIfThere(path, rmdirSync);
    for (const name of FILES) removeIfThere(join(folder, name), unlinkSync);
    rmdirSync(folder);
    return true;
  } catch {
    return false;
  }
}

/** The path of the cgroup of a container in which nothing is special; undefined of another. */
function usualCgroup(folder: string, pid: number): string | undefined {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory() || !FILES.includes(entry.name)) return undefined;
  const status = JSON.parse(readFileSync(join(folder, 'status'), 'utf8')) as Status;
  const { 'cgroup-path': cgroup, 'systemd-cgroup': systemd, scope = '', intelrdt = '' } = status;
  if (status.pid !== pid || !isGone(pid) || systemd !== false || scope !== '' || intelrdt !== '')
    return undefined;
  // A folder below the root of its hierarchy, wherever one looks from.
  if (typeof cgroup !== 'string' || !/^(\/[^/]+)+$/.test(cgroup) || /\/\.\.?(\/|$)/.test(cgroup))
    return undefined;
  const { hooks, linux } = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Config;
  return (hooks?.poststop?.length ?? 0) > 0 || linux?.intelRdt != null ? undefined : cgroup;
}

/** In v2 its one folder; else one in each hierarchy that there is, under the name by which the list in /proc has it. */
function cgroupFolders(path: string): string[] {
  if (statfsSync(CGROUP_ROOT).type === CGROUP2_MAGIC) return [join(CGROUP_ROOT, path)];
  const lines = readFileSync('/proc/self/cgroup', 'utf8').split('\n');
  const names = lines.flatMap((line) => /^\d+:([^:]*):/.exec(line)?.[1] ?? []);
  return names.map((name) => join(CGROUP_ROOT, name.replace(/^name=/, '') || 'unified', path));
}
