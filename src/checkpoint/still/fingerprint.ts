// What must be the same for a paused container to be exactly what its last checkpoint holds.
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { cgroupPids, findCgroup, foldersOf, type Cgroup } from '../../sys/cgroup.ts';
import { cpuUsage } from '../../sys/cgroup-cpu.ts';
import { freezerOf } from '../../sys/cgroup-freezer.ts';
import { parseMountTable } from '../../sys/mount-table.ts';
import { descriptorsOf } from './descriptors.ts';
import { mappingsOf } from './mappings.ts';
import { socketsOf } from './sockets.ts';
import { Doubt, link, list, read, readIdempotent } from './text.ts';
import { tmpfsContents } from './tmpfs.ts';

/** The state of a container that stands still. */
export interface Fingerprint {
  /** CPU time of its cgroup in nanoseconds: what has run since has used some. */
  readonly cpuNs: bigint;
  /** Everything else, as a digest. */
  readonly digest: string;
}

/**
 * The fingerprint of a frozen container. Two that are equal mean that no thread of it has run in between, and that nothing
 * which CRIU would dump was changed from outside: threads are compared by their counts of context switches, and what others
 * can change without a thread's running (signals, limits, priorities, sockets, pipes, tmpfs files, cgroup settings,
 * mounts, addresses) by itself.
 *
 * What cannot be judged so from outside counts as changed: terminals, connections, unix sockets, armed timers, inotify,
 * memory that others may share.
 * @returns undefined where it does not stand still, or something of it cannot be judged
 */
export async function fingerprintOf(pid: number): Promise<Fingerprint | undefined> {
  try {
    const cgroup = await findCgroup(pid);
    if (!(await freezerOf(cgroup).isFrozen())) return undefined;
    const cpuNs = await cpuUsage(cgroup);
    if (cpuNs === undefined) return undefined;
    const pids = (await cgroupPids(cgroup)).sort((a, b) => a - b);
    if (!pids.includes(pid)) return undefined;
    const hash = createHash('sha256');
    const boot = read('/proc/sys/kernel/random/boot_id');
    for (const part of [boot, ...settingsOf(cgroup), mountsAndNetwork(pid)]) hash.update(`${part}\0`);
    for (const one of pids) {
      for (const part of processOf(one)) hash.update(`${part}\0`);
      await setImmediate(); // others have their turn
    }
    // Whatever was being read, it has been standing still all the while.
    if ((await cpuUsage(cgroup)) !== cpuNs || !(await freezerOf(cgroup).isFrozen())) return undefined;
    return { cpuNs, digest: hash.digest('hex') };
  } catch (error) {
    // A process that is gone, a file that this kernel has not: whatever it was, it cannot be said that nothing changed.
    if (error instanceof Doubt || (error instanceof Error && 'code' in error)) return undefined;
    throw error;
  }
}

/** A part of what two fingerprints are compared for, and the cheapest: its CPU time, and that it stands still. */
export async function hasRestedSince(pid: number, { cpuNs }: Fingerprint): Promise<boolean> {
  try {
    const cgroup = await findCgroup(pid);
    return (await cpuUsage(cgroup)) === cpuNs && (await freezerOf(cgroup).isFrozen());
  } catch (error) {
    if (error instanceof Error && 'code' in error) return false;
    throw error;
  }
}

export function sameFingerprint(a: Fingerprint | undefined, b: Fingerprint | undefined): boolean {
  return a !== undefined && b !== undefined && a.cpuNs === b.cpuNs && a.digest === b.digest;
}

/** Lines of /proc/PID/status that change though the process stands still: the kernel reclaims, and others have its user id. */
const restless = /^(Vm\w+|Rss\w+|HugetlbPages|SigQ|CoreDumping|untag_mask):.*\n/gm;
const waiting = /^(SigPnd|ShdPnd):\s*0+$/gm;

function processOf(pid: number): string[] {
  const folder = `/proc/${pid}`;
  return [
    startTime(read(`${folder}/stat`)),
    read(`${folder}/limits`),
    read(`${folder}/oom_score_adj`),
    read(`${folder}/coredump_filter`),
    timersOf(pid),
    mappingsOf(pid),
    descriptorsOf(pid),
    socketsOf(pid),
    ...['root', 'cwd', 'exe'].map((name) => link(`${folder}/${name}`)),
    ...list(`${folder}/ns`).map((name) => link(`${folder}/ns/${name}`)),
    ...list(`${folder}/task`).map((thread) => threadOf(`${folder}/task/${thread}`)),
  ];
}

/** Context switches are in it: who has not been switched in has not run. */
function threadOf(folder: string): string {
  const status = read(`${folder}/status`);
  if (status.match(waiting)?.length !== 2) throw new Doubt('a signal is pending');
  if (!/^TracerPid:\s*0$/m.test(status)) throw new Doubt('it is being traced');
  if (/^State:\s*[TtX]/m.test(status)) throw new Doubt('it was stopped by a signal');
  if (!/^nonvoluntary_ctxt_switches:/m.test(status)) throw new Doubt('context switches are not counted');
  return `${startTime(read(`${folder}/stat`))}\n${status.replace(restless, '')}`;
}

/** Fields 18 and 19 (priority, nice), 22 (start), 40 and 41 (scheduling) of proc_pid_stat(5). */
function startTime(stat: string): string {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return [15, 16, 19, 37, 38].map((index) => fields[index] ?? '').join(' ');
}

/** One that is armed goes off while everything stands still: proc_pid_timers(5). */
function timersOf(pid: number): string {
  const timers = read(`/proc/${pid}/timers`);
  if (timers !== '') throw new Doubt('it has a timer');
  return timers;
}

/** What `update` sets, by the names of cgroup v1 and v2. CRIU keeps these with the processes. */
const settings = new RegExp(
  `^(${[
    'cpu\\.(shares|cfs_\\w+_us|rt_\\w+_us|idle|max|max\\.burst|weight|weight\\.nice|uclamp\\.\\w+)',
    'cpuset\\.(cpus|mems|cpus\\.partition|\\w+_exclusive|\\w+_hardwall|memory_migrate|memory_spread_\\w+|sched_\\w+)',
    'memory\\.((\\w+\\.)*(soft_)?limit_in_bytes|swappiness|oom_control|min|low|high|max|swap\\.(max|high)|zswap\\.max|oom\\.group)',
    'blkio\\.(weight|weight_device|bfq\\.\\w+|throttle\\.\\w+_device)',
    'io\\.(max|weight|bfq\\.weight|latency)',
    '(pids|misc|rdma)\\.max',
    'hugetlb\\.\\w+\\.((rsvd\\.)?max|(rsvd\\.)?limit_in_bytes)',
    'devices\\.list',
    'net_cls\\.classid',
    'net_prio\\.ifpriomap',
  ].join('|')})$`,
);

function settingsOf(cgroup: Cgroup): string[] {
  return foldersOf(cgroup)
    .sort()
    .flatMap((folder) =>
      list(folder)
        .filter((name) => settings.test(name))
        .map((name) => `${folder}/${name}=${readIdempotent(`${folder}/${name}`)}`),
    );
}

function mountsAndNetwork(pid: number): string {
  const table = read(`/proc/${pid}/mountinfo`);
  const net = `/proc/${pid}/net`;
  const devices = read(`${net}/dev`).replace(/:.*$/gm, ''); // the counts of packets are nothing of the container's
  const addresses = ['fib_trie', 'route', 'if_inet6', 'ipv6_route'].map((name) =>
    readIdempotent(`${net}/${name}`),
  );
  return [table, devices, ...addresses, tmpfsContents(pid, parseMountTable(table))].join('\0');
}
