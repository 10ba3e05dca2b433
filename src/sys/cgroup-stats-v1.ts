import { readFile } from 'node:fs/promises';
import type {
  BlkIOEntry,
  BlkIOStat,
  CPUStat,
  HugetlbStat,
  MemoryEntry,
  MemoryOomControl,
  MemoryStat,
  Metrics,
  PidsStat,
} from '../proto/gen/containerd/cgroups_v1.ts';
import { toTable, type CgroupFiles } from './cgroup-files.ts';

/** Files by controller; a controller that is not mounted leaves its part of the message out. */
export type ControllerFiles = ReadonlyMap<string, CgroupFiles>;

/**
 * Reads a v1 cgroup's figures into containerd's message: the same files and fields as its own shim reads, so that
 * `ctr task metrics`, `nerdctl stats` and the CRI show what they always show.
 */
export async function readMetricsV1(files: ControllerFiles, pageSizes: readonly string[]): Promise<Metrics> {
  const at = <T>(controller: string, read: (files: CgroupFiles) => T): T | undefined => {
    const found = files.get(controller);
    return found === undefined ? undefined : read(found);
  };
  const hugetlb = at('hugetlb', (found) => pageSizes.map((size) => readHugetlb(found, size)));
  const pids = at('pids', readPids);
  const cpu = readCpu(files.get('cpuacct'), files.get('cpu'));
  const memoryOomControl = at('memory', readOomControl);
  const [memory, blkio] = await Promise.all([at('memory', readMemory), at('blkio', readBlkio)]);
  return {
    hugetlb: hugetlb ?? [],
    pids,
    cpu,
    memory,
    blkio,
    rdma: undefined,
    network: [],
    cgroupStats: undefined,
    memoryOomControl,
  };
}

function readPids(files: CgroupFiles): PidsStat {
  return { current: files.number('pids.current', 0n), limit: files.number('pids.max', 0n) };
}

function readHugetlb(files: CgroupFiles, pagesize: string): HugetlbStat {
  return {
    usage: files.number(`hugetlb.${pagesize}.usage_in_bytes`, 0n),
    max: files.number(`hugetlb.${pagesize}.max_usage_in_bytes`, 0n),
    failcnt: files.number(`hugetlb.${pagesize}.failcnt`, 0n),
    pagesize,
  };
}

/** cpuacct.stat counts in ticks of 1/100 s (USER_HZ, the same on every architecture that we run on). */
const NANOSECONDS_PER_TICK = 10_000_000n;

function readCpu(acct: CgroupFiles | undefined, cpu: CgroupFiles | undefined): CPUStat {
  const total = acct?.number('cpuacct.usage', 0n);
  const perCpu = acct?.text('cpuacct.usage_percpu');
  const ticks = acct?.table('cpuacct.stat');
  const throttle = cpu?.table('cpu.stat');
  return {
    usage: {
      total: total ?? 0n,
      kernel: (ticks?.get('system') ?? 0n) * NANOSECONDS_PER_TICK,
      user: (ticks?.get('user') ?? 0n) * NANOSECONDS_PER_TICK,
      perCpu: (perCpu ?? '').trim().split(/\s+/).filter(Boolean).map(BigInt),
    },
    throttling: {
      periods: throttle?.get('nr_periods') ?? 0n,
      throttledPeriods: throttle?.get('nr_throttled') ?? 0n,
      throttledTime: throttle?.get('throttled_time') ?? 0n,
    },
  };
}

function readOomControl(files: CgroupFiles): MemoryOomControl {
  const table = files.table('memory.oom_control');
  return {
    oomKillDisable: table.get('oom_kill_disable') ?? 0n,
    underOom: table.get('under_oom') ?? 0n,
    oomKill: table.get('oom_kill') ?? 0n,
  };
}

async function readMemory(files: CgroupFiles): Promise<MemoryStat> {
  const stat = toTable(await files.summed('memory.stat'));
  const at = (key: string): bigint => stat.get(key) ?? 0n;
  return {
    cache: at('cache'),
    rss: at('rss'),
    rssHuge: at('rss_huge'),
    mappedFile: at('mapped_file'),
    dirty: at('dirty'),
    writeback: at('writeback'),
    pgPgIn: at('pgpgin'),
    pgPgOut: at('pgpgout'),
    pgFault: at('pgfault'),
    pgMajFault: at('pgmajfault'),
    inactiveAnon: at('inactive_anon'),
    activeAnon: at('active_anon'),
    inactiveFile: at('inactive_file'),
    activeFile: at('active_file'),
    unevictable: at('unevictable'),
    hierarchicalMemoryLimit: at('hierarchical_memory_limit'),
    hierarchicalSwapLimit: at('hierarchical_memsw_limit'),
    totalCache: at('total_cache'),
    totalRss: at('total_rss'),
    totalRssHuge: at('total_rss_huge'),
    totalMappedFile: at('total_mapped_file'),
    totalDirty: at('total_dirty'),
    totalWriteback: at('total_writeback'),
    totalPgPgIn: at('total_pgpgin'),
    totalPgPgOut: at('total_pgpgout'),
    totalPgFault: at('total_pgfault'),
    totalPgMajFault: at('total_pgmajfault'),
    totalInactiveAnon: at('total_inactive_anon'),
    totalActiveAnon: at('total_active_anon'),
    totalInactiveFile: at('total_inactive_file'),
    totalActiveFile: at('total_active_file'),
    totalUnevictable: at('total_unevictable'),
    usage: readMemoryEntry(files, 'memory'),
    swap: readMemoryEntry(files, 'memory.memsw'),
    kernel: readMemoryEntry(files, 'memory.kmem'),
    kernelTcp: readMemoryEntry(files, 'memory.kmem.tcp'),
  };
}

function readMemoryEntry(files: CgroupFiles, prefix: string): MemoryEntry {
  return {
    limit: files.number(`${prefix}.limit_in_bytes`, 0n),
    usage: files.number(`${prefix}.usage_in_bytes`, 0n),
    max: files.number(`${prefix}.max_usage_in_bytes`, 0n),
    failcnt: files.number(`${prefix}.failcnt`, 0n),
  };
}

/** The throttling policy's counts: those of the schedulers (CFQ, BFQ) are empty unless one of them is in use. */
async function readBlkio(files: CgroupFiles): Promise<BlkIOStat> {
  const serviced = files.text('blkio.throttle.io_serviced');
  const bytes = files.text('blkio.throttle.io_service_bytes');
  const devices = /^\d/m.test(serviced + bytes) ? await deviceNames() : new Map<string, string>();
  return {
    ioServiceBytesRecursive: blkioEntries(bytes, devices),
    ioServicedRecursive: blkioEntries(serviced, devices),
    ioQueuedRecursive: [],
    ioServiceTimeRecursive: [],
    ioWaitTimeRecursive: [],
    ioMergedRecursive: [],
    ioTimeRecursive: [],
    sectorsRecursive: [],
  };
}

/** Lines of `major:minor operation value`, then a total. */
export function blkioEntries(text: string, devices: ReadonlyMap<string, string>): BlkIOEntry[] {
  const entries: BlkIOEntry[] = [];
  for (const line of text.split('\n')) {
    const [, major, minor, op, value] = /^(\d+):(\d+) (\w+) (\d+)$/.exec(line) ?? [];
    if (major === undefined || minor === undefined || op === undefined || value === undefined) continue;
    const device = devices.get(`${major}:${minor}`) ?? '';
    entries.push({ op, device, major: BigInt(major), minor: BigInt(minor), value: BigInt(value) });
  }
  return entries;
}

async function deviceNames(): Promise<Map<string, string>> {
  const names = new Map<string, string>();
  for (const line of (await readFile('/proc/partitions', 'utf8')).split('\n')) {
    const [major, minor, , name] = line.trim().split(/\s+/);
    if (major !== undefined && minor !== undefined && name !== undefined)
      names.set(`${major}:${minor}`, `/dev/${name}`);
  }
  return names;
}

/** Page sizes from the names of a hugetlb folder's files, `hugetlb.2MB.usage_in_bytes`. */
export function pageSizesOf(fileNames: readonly string[]): string[] {
  return fileNames
    .map((name) => /^hugetlb\.(\d+[KMGT]B)\.(?:usage_in_bytes|current)$/.exec(name)?.[1])
    .filter((size) => size !== undefined)
    .sort();
}
