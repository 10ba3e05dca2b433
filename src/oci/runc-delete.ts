// The removal of an ended container that runc has made, without runc.
import { readdirSync, readFileSync, rmdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { isGone, removeIfThere } from './remains.ts';
import type { RuntimeBinary } from './types.ts';

/**
 * What runc keeps of a usual container, in the order of removal: without `state.json` its own `delete` takes the whole folder
 * away, so that one that was broken off here can be finished there.
 */
const FILES = ['state.json', 'exec.fifo'];

/** What of runc's state has something to do at the removal. */
interface State {
  readonly init_process_pid?: unknown;
  readonly rootless?: unknown;
  readonly intel_rdt_path?: unknown;
  readonly cgroup_paths?: Readonly<Record<string, unknown>>;
  readonly config?: {
    readonly namespaces?: readonly { readonly type?: unknown; readonly path?: unknown }[];
    readonly intel_rdt?: unknown;
    readonly rootless_cgroups?: unknown;
    readonly Hooks?: { readonly poststop?: readonly unknown[] | null } | null;
    readonly cgroups?: { readonly Systemd?: unknown; readonly systemd?: unknown };
  };
}

/**
 * Whether `delete` of a runc is the one that `deleteOfRunc` stands for. delete.go, destroy (libcontainer/state_linux.go), the
 * removal of cgroups and what is written of the state were read in 1.1.0, 1.1.5, 1.1.15, 1.2.0, 1.3.0, 1.4.0 and 1.5.1.
 */
export function knowsDeleteOfRunc({ name, version, wrapped }: RuntimeBinary): boolean {
  const minor = Number(/^1\.(\d+)\.\d+$/.exec(version)?.[1]);
  return name === 'runc' && wrapped !== true && minor >= 1 && minor <= 5;
}

/**
 * Takes away what runc has of a container whose first process has ended, as its `delete` does:
 *
 * | here                                                    | runc's function                    |
 * | ------------------------------------------------------- | ---------------------------------- |
 * | the state names that process, and it is gone            | Container.Status                   |
 * | it had a pid namespace of its own, so nobody is left    | destroy, signalAllProcesses        |
 * | the folders of its cgroup are removed                   | cgroups.Manager.Destroy            |
 * | it has no resctrl group                                 | intelrdt.Manager.Destroy           |
 * | the files and the folder are removed                    | destroy, os.RemoveAll              |
 * | it has no poststop hook                                 | runPoststopHooks                   |
 *
 * A start of runc's own program takes ten times as long as all that it then does. Where anything is not as in a usual container, and
 * at any failure, nothing more is done here: whatever is left then, runc's `delete` can take away. So it does where somebody is still
 * in the cgroup, or it has others below it, since the kernel removes no such folder.
 *
 * On the calling thread: all of it is in memory, and a dozen trips through libuv's threads take longer than the rest.
 * @param folder runc's folder for this container
 * @param pid of its first process, which has been waited for
 * @param hierarchies where all cgroups are
 * @returns whether it is done; otherwise the runtime's own `delete` is to do it, or to say what is wrong
 */
export function deleteOfRunc(folder: string, pid: number, hierarchies = '/sys/fs/cgroup'): boolean {
  try {
    const cgroups = usualCgroups(folder, pid, hierarchies);
    if (cgroups === undefined) return false;
    for (const path of cgroups) removeIfThere(path, rmdirSync);
    for (const name of FILES) removeIfThere(join(folder, name), unlinkSync);
    rmdirSync(folder);
    return true;
  } catch {
    return false;
  }
}

/** The folders of the cgroup of a container in which nothing is special; undefined of another. */
function usualCgroups(folder: string, pid: number, hierarchies: string): string[] | undefined {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory() || !FILES.includes(entry.name)) return undefined;
  const state = JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as State;
  const { config } = state;
  if (state.init_process_pid !== pid || !isGone(pid) || config?.cgroups === undefined) return undefined;
  const { Systemd, systemd } = config.cgroups;
  const special = [
    state.rootless,
    state.intel_rdt_path,
    config.intel_rdt,
    config.rootless_cgroups,
    Systemd,
    systemd,
  ];
  if (special.some(Boolean) || (config.Hooks?.poststop?.length ?? 0) > 0) return undefined;
  if (config.namespaces?.some(({ type, path }) => type === 'NEWPID' && path === '') !== true)
    return undefined;
  const paths = Object.values(state.cgroup_paths ?? {});
  const isUsual = (path: unknown): path is string =>
    typeof path === 'string' && path.startsWith(`${hierarchies}/`) && !/\/\.{0,2}(\/|$)/.test(path);
  return paths.length > 0 && paths.every(isUsual) ? paths : undefined;
}
