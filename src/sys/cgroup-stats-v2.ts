import type {
  CPUStat,
  HugeTlbStat,
  IOStat,
  MemoryEvents,
  MemoryStat,
  Metrics,
  PSIData,
  PSIStats,
  RdmaEntry,
} from '../proto/gen/containerd/cgroups_v2.ts';
import { toTable, type CgroupFiles } from './cgroup-files.ts';

/** How containerd's message writes `max`. */
const UNLIMITED = 2n ** 64n - 1n;

/** Reads a v2 cgroup's figures into containerd's message, from the same files as its own shim. */
export async function readMetricsV2(files: CgroupFiles, pageSizes: readonly string[]): Promise<Metrics> {
  const [cpu, memory, io] = await Promise.all([readCpu(files), readMemory(files), readIo(files)]);
  return {
    pids: { current: files.number('pids.current', UNLIMITED), limit: files.number('pids.max', UNLIMITED) },
    cpu,
    memory,
    rdma: { current: rdmaEntries(files.text('rdma.current')), limit: rdmaEntries(files.text('rdma.max')) },
    io,
    hugetlb: pageSizes.map((size) => readHugetlb(files, size)),
    memoryEvents: readMemoryEvents(files),
    network: [],
  };
}

async function readCpu(files: CgroupFiles): Promise<CPUStat> {
  const stat = toTable(await files.summed('cpu.stat'));
  const at = (key: string): bigint => stat.get(key) ?? 0n;
  return {
    usageUsec: at('usage_usec'),
    userUsec: at('user_usec'),
    systemUsec: at('system_usec'),
    nrPeriods: at('nr_periods'),
    nrThrottled: at('nr_throttled'),
    throttledUsec: at('throttled_usec'),
    psi: pressureOf(files.text('cpu.pressure')),
    nrBursts: at('nr_bursts'),
    burstUsec: at('burst_usec'),
  };
}

async function readMemory(files: CgroupFiles): Promise<MemoryStat> {
  const stat = toTable(await files.summed('memory.stat'));
  const at = (key: string): bigint => stat.get(key) ?? 0n;
  return {
    anon: at('anon'),
    file: at('file'),
    kernelStack: at('kernel_stack'),
    slab: at('slab'),
    sock: at('sock'),
    shmem: at('shmem'),
    fileMapped: at('file_mapped'),
    fileDirty: at('file_dirty'),
    fileWriteback: at('file_writeback'),
    anonThp: at('anon_thp'),
    inactiveAnon: at('inactive_anon'),
    activeAnon: at('active_anon'),
    inactiveFile: at('inactive_file'),
    activeFile: at('active_file'),
    unevictable: at('unevictable'),
    slabReclaimable: at('slab_reclaimable'),
    slabUnreclaimable: at('slab_unreclaimable'),
    pgfault: at('pgfault'),
    pgmajfault: at('pgmajfault'),
    workingsetRefault: at('workingset_refault'),
    workingsetActivate: at('workingset_activate'),
    workingsetNodereclaim: at('workingset_nodereclaim'),
    pgrefill: at('pgrefill'),
    pgscan: at('pgscan'),
    pgsteal: at('pgsteal'),
    pgactivate: at('pgactivate'),
    pgdeactivate: at('pgdeactivate'),
    pglazyfree: at('pglazyfree'),
    pglazyfreed: at('pglazyfreed'),
    thpFaultAlloc: at('thp_fault_alloc'),
    thpCollapseAlloc: at('thp_collapse_alloc'),
    usage: files.number('memory.current', UNLIMITED),
    usageLimit: files.number('memory.max', UNLIMITED),
    swapUsage: files.number('memory.swap.current', UNLIMITED),
    swapLimit: files.number('memory.swap.max', UNLIMITED),
    maxUsage: files.number('memory.peak', UNLIMITED),
    swapMaxUsage: files.number('memory.swap.peak', UNLIMITED),
    psi: pressureOf(files.text('memory.pressure')),
    workingsetRefaultAnon: at('workingset_refault_anon'),
    workingsetRefaultFile: at('workingset_refault_file'),
    workingsetActivateAnon: at('workingset_activate_anon'),
    workingsetActivateFile: at('workingset_activate_file'),
  };
}

function readMemoryEvents(files: CgroupFiles): MemoryEvents {
  const events = files.table('memory.events');
  const at = (key: string): bigint => events.get(key) ?? 0n;
  return {
    low: at('low'),
    high: at('high'),
    max: at('max'),
    oom: at('oom'),
    oomKill: at('oom_kill'),
    oomGroupKill: at('oom_group_kill'),
  };
}

async function readIo(files: CgroupFiles): Promise<IOStat> {
  const stat = await files.summed('io.stat');
  const usage = stat.split('\n').flatMap((line) => {
    const [, major, minor, rest] = /^(\d+):(\d+) (.*)$/.exec(line) ?? [];
    if (major === undefined || minor === undefined || rest === undefined) return [];
    const values = assignments(rest);
    const at = (key: string): bigint => BigInt(values.get(key) ?? 0);
    return [
      {
        major: BigInt(major),
        minor: BigInt(minor),
        rbytes: at('rbytes'),
        wbytes: at('wbytes'),
        rios: at('rios'),
        wios: at('wios'),
      },
    ];
  });
  return { usage, psi: pressureOf(files.text('io.pressure')) };
}

function readHugetlb(files: CgroupFiles, pagesize: string): HugeTlbStat {
  return {
    current: files.number(`hugetlb.${pagesize}.current`, UNLIMITED),
    max: files.number(`hugetlb.${pagesize}.max`, UNLIMITED),
    pagesize,
    failcnt: files.table(`hugetlb.${pagesize}.events`).get('max') ?? 0n,
  };
}

/** `mlx4_0 hca_handle=2 hca_object=2000`, or `max` as the value. */
export function rdmaEntries(text: string): RdmaEntry[] {
  return text.split('\n').flatMap((line) => {
    const [, device, rest] = /^(\S+) (.*)$/.exec(line) ?? [];
    if (device === undefined || rest === undefined) return [];
    const values = assignments(rest);
    const at = (key: string): number =>
      values.get(key) === 'max' ? 2 ** 32 - 1 : Number(values.get(key) ?? 0);
    return [{ device, hcaHandles: at('hca_handle'), hcaObjects: at('hca_object') }];
  });
}

/** Two lines, `some` and `full`, of averages in percent and a total in microseconds (accounting/psi.rst). */
export function pressureOf(text: string): PSIStats | undefined {
  const lines = new Map(text.split('\n').map((line) => [line.split(' ', 1)[0], line] as const));
  const some = pressureLine(lines.get('some'));
  const full = pressureLine(lines.get('full'));
  return some === undefined && full === undefined ? undefined : { some, full };
}

function pressureLine(line: string | undefined): PSIData | undefined {
  if (line === undefined) return undefined;
  const values = assignments(line);
  return {
    avg10: Number(values.get('avg10') ?? 0),
    avg60: Number(values.get('avg60') ?? 0),
    avg300: Number(values.get('avg300') ?? 0),
    total: BigInt(values.get('total') ?? 0),
  };
}

function assignments(text: string): Map<string, string> {
  return new Map(
    text
      .split(' ')
      .filter((word) => word.includes('='))
      .map((word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]),
  );
}
