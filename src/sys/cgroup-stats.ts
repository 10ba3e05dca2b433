import { readdir } from 'node:fs/promises';
import { NotFound } from '../errors.ts';
import { Metrics as MetricsV1 } from '../proto/gen/containerd/cgroups_v1.ts';
import { Metrics as MetricsV2 } from '../proto/gen/containerd/cgroups_v2.ts';
import { folderOf, type Cgroup } from './cgroup.ts';
import { CgroupFiles } from './cgroup-files.ts';
import { pageSizesOf, readMetricsV1 } from './cgroup-stats-v1.ts';
import { readMetricsV2 } from './cgroup-stats-v2.ts';

/** A protobuf Any: what the Task service's Stats answers. */
export interface PackedMetrics {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/** A container's figures, read from the cgroup's files: no process, descriptors kept between calls. */
export interface CgroupStats {
  /**
   * The figures now; once the cgroup is gone, the last ones: an exited task is asked for its OOM kills until it is deleted.
   * @throws NotFound when the cgroup was gone before the first reading
   */
  read(): Promise<PackedMetrics>;
  /** How often the kernel has killed in this cgroup for want of memory. */
  oomKills(): bigint;
  close(): void;
}

export function openStats(cgroup: Cgroup): CgroupStats {
  return cgroup.version === 2 ? new StatsV2(cgroup) : new StatsV1(cgroup);
}

/** What both have in common: the page sizes are read once, the last figures are kept, the OOM count never falls. */
abstract class Stats implements CgroupStats {
  readonly #cgroup: Cgroup;
  readonly #oom: { files: CgroupFiles; name: string } | undefined;
  #pageSizes: Promise<string[]> | undefined;
  #last: PackedMetrics | undefined;
  #oomKills = 0n;

  constructor(cgroup: Cgroup, oom: { files: CgroupFiles; name: string } | undefined) {
    this.#cgroup = cgroup;
    this.#oom = oom;
  }

  protected abstract pack(pageSizes: readonly string[]): Promise<PackedMetrics>;
  abstract close(): void;

  async read(): Promise<PackedMetrics> {
    const folder = folderOf(this.#cgroup, 'hugetlb');
    this.#pageSizes ??=
      folder === undefined ? Promise.resolve([]) : readdir(folder).then(pageSizesOf, () => []);
    const packed = await this.pack(await this.#pageSizes);
    // Asked after the reading: a cgroup that was removed half-way has left zeros in it.
    if (this.alive()) this.#last = packed;
    if (this.#last === undefined) {
      throw new NotFound(`cgroup ${this.#cgroup.path} is gone`, { subject: this.#cgroup.path });
    }
    return this.#last;
  }

  oomKills(): bigint {
    const now = this.#oom?.files.table(this.#oom.name).get('oom_kill') ?? 0n;
    if (now > this.#oomKills) this.#oomKills = now;
    return this.#oomKills;
  }

  /** Every cgroup has this file, and it is never empty while the cgroup lives. */
  protected abstract alive(): boolean;
}

class StatsV1 extends Stats {
  readonly #files: ReadonlyMap<string, CgroupFiles>;

  constructor(cgroup: Cgroup) {
    const wanted = ['hugetlb', 'pids', 'cpuacct', 'cpu', 'memory', 'blkio'];
    const files = new Map<string, CgroupFiles>();
    for (const controller of wanted) {
      const folder = folderOf(cgroup, controller);
      if (folder !== undefined) files.set(controller, new CgroupFiles(folder));
    }
    const memory = files.get('memory');
    super(cgroup, memory && { files: memory, name: 'memory.oom_control' });
    this.#files = files;
  }

  protected async pack(pageSizes: readonly string[]): Promise<PackedMetrics> {
    const metrics = await readMetricsV1(this.#files, pageSizes);
    return { typeUrl: 'io.containerd.cgroups.v1.Metrics', value: MetricsV1.encode(metrics).finish() };
  }

  protected alive(): boolean {
    const first = this.#files.values().next().value;
    return first !== undefined && first.text('notify_on_release') !== '';
  }

  close(): void {
    for (const files of this.#files.values()) files.close();
  }
}

class StatsV2 extends Stats {
  readonly #files: CgroupFiles;

  constructor(cgroup: Cgroup) {
    const files = new CgroupFiles(folderOf(cgroup, '') ?? '');
    super(cgroup, { files, name: 'memory.events' });
    this.#files = files;
  }

  protected async pack(pageSizes: readonly string[]): Promise<PackedMetrics> {
    const metrics = await readMetricsV2(this.#files, pageSizes);
    return { typeUrl: 'io.containerd.cgroups.v2.Metrics', value: MetricsV2.encode(metrics).finish() };
  }

  protected alive(): boolean {
    return this.#files.text('cgroup.events') !== '';
  }

  close(): void {
    this.#files.close();
  }
}
