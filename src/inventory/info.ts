import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { configPath } from '../config/config.ts';
import { criuFeatures } from '../criu/find.ts';
import { messageOf } from '../errors.ts';
import type { Finding, InfoResponse } from '../proto/gen/stasis/stasis.ts';
import { listShims, shimMessage } from '../shims/list.ts';
import { version } from '../version.ts';
import { type Host, snapshotterName } from '../checkpoint/host.ts';
import { hostObstacle } from '../checkpoint/paging.ts';
import { readMountTable } from '../sys/mount-table.ts';
import { hasXattrs } from '../sys/xattr.ts';
import { Patience } from '../zfs/patience.ts';
import { size } from '../units.ts';

/** Milliseconds that a mounted file system may take to answer. */
const XATTR_TIMEOUT_MS = 3000;
const CGROUP2_SUPER_MAGIC = 0x63677270;

/** What this host can do, and the fix for each thing that is missing. */
export async function hostInfo(host: Host): Promise<InfoResponse> {
  const shims = listShims(host.config.daemon.run_dir);
  const findings = await Promise.all([
    zfs(host),
    pool(host),
    xattr(host),
    index(host),
    criu(host),
    runtime(host),
    lazyPages(host),
    precopy(host),
    containerd(host),
    plugin(host),
    cgroups(),
    staging(host),
  ]);
  return {
    version,
    findings,
    rootDataset: host.root,
    configFile: configPath(),
    daemonPid: process.pid,
    shims: (await shims).map(shimMessage),
  };
}

function good(name: string, value: string): Finding {
  return { name, ok: true, value, remedy: '' };
}

function bad(name: string, value: string, remedy: string): Finding {
  return { name, ok: false, value, remedy };
}

async function zfs({ zfs: { kind, version: release } }: Host): Promise<Finding> {
  return good('zfs', kind === 'openzfs' ? `OpenZFS ${release}` : `zfs-fuse, ${release}`);
}

/** Of a pool; with less, checkpoints fail, and ZFS itself becomes slow. */
const LEAST_FREE = 0.02;

async function pool(host: Host): Promise<Finding> {
  const name = host.root.split('/')[0] ?? host.root;
  try {
    const { health, freeBytes, sizeBytes } = await host.zfs.poolStatus(name);
    const value = `${name}: ${health}, ${size(freeBytes)} of ${size(sizeBytes)} free`;
    if (health !== 'ONLINE') return bad('pool', value, `see: zpool status ${name}`);
    if (freeBytes < sizeBytes * LEAST_FREE)
      return bad('pool', value, 'make room: stasis df shows what takes it, stasis rm removes checkpoints');
    return good('pool', value);
  } catch (error) {
    return bad('pool', messageOf(error), `see: zpool status ${name}`);
  }
}

/**
 * Whether files can have extended attributes. Without them images lose their file capabilities, and containerd's own differ, which
 * `ctr tasks checkpoint` uses with containerd 1.6, gives up.
 */
async function xattr({ root, config, zfs: { kind } }: Host): Promise<Finding> {
  const table = await readMountTable();
  const ours = table.find(
    ({ type, source, target }) =>
      /(^|\.)zfs$/.test(type) &&
      source.startsWith(`${root}/`) &&
      dirname(target) === `${config.daemon.run_dir}/mnt`,
  );
  if (ours === undefined) return good('xattr', 'not known before the first container');
  const patience = new Patience(XATTR_TIMEOUT_MS);
  try {
    if (await patience.wait(ours.source, () => hasXattrs(ours.target)))
      return good('xattr', 'files can have extended attributes');
  } catch (error) {
    return bad('xattr', messageOf(error), `see: zpool status ${root.split('/')[0]}`);
  }
  return bad(
    'xattr',
    'no extended attributes: images lose file capabilities, and ctr tasks checkpoint and ctr containers checkpoint fail with containerd 1.6',
    kind === 'openzfs'
      ? `zfs set xattr=sa ${root}; it counts for what is mounted afterwards`
      : 'with no container running, put a line "enable-xattr" into /etc/zfs/zfsrc and restart zfs-fuse',
  );
}

/** Milliseconds that a comparison of the index with the pool may take: zfs-fuse needs 10 ms and more for each dataset. */
const COMPARISON_MS = 5000;

/** How well the index in memory stands for the pool. What is only still in use is told, and no fault of the host. */
async function index({ store }: Host): Promise<Finding> {
  const { datasets, snapshots, checkpoints, removed, foreign, ...health } = store.health();
  const { unsettled, unmarked, unreadable, undestroyed } = health;
  const value = [
    `${datasets} datasets: ${snapshots} snapshots, ${checkpoints} checkpoints, ${removed} removed`,
    ...(foreign === 0 ? [] : [`${foreign} of other containerds (see stasis adopt)`]),
    ...undestroyed.slice(0, 1).map(({ dataset, why }) => `${dataset} cannot be destroyed yet: ${why}`),
  ].join('; ');
  if (unsettled.length > 0) {
    const remedy = 'mend the pool (zpool status); the next change asks it what became of them';
    return bad('index', `${value}; no answer about ${unsettled.join(', ')}`, remedy);
  }
  if (unmarked.length > 0) {
    const remedy = 'make room in the pool: the next sweep writes it down';
    return bad('index', `${value}; no room to write down the removal of ${unmarked.join(', ')}`, remedy);
  }
  const gone = await store.gone({ timeoutMs: COMPARISON_MS }).catch(() => []); // `pool` says what is wrong with that
  if (gone.length > 0) {
    const remedy =
      'they were destroyed or renamed by hand: remove what they were of with its client, or rename them back';
    return bad('index', `${value}; the pool does not have ${some(gone)}`, remedy);
  }
  if (unreadable.length > 0) {
    const names = some(unreadable.map(({ dataset }) => dataset));
    const remedy = 'stasis adopt --dry-run says why, and what to do about each';
    return bad('index', `${value}; ${names} cannot be read`, remedy);
  }
  return good('index', value);
}

/** The first few of many names. */
function some(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(', ');
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}

async function criu(host: Host): Promise<Finding> {
  try {
    const { version: release, works, complaint, safeForClones, path } = await host.criu.get();
    if (!works)
      return bad('criu', `${release}: ${complaint}`, 'install CRIU 4.2 or newer, which knows this kernel');
    if (!safeForClones) {
      return bad(
        'criu',
        `${release}: works, but clones would repeat random numbers`,
        'install CRIU 4.2 or newer',
      );
    }
    const has = await Promise.all(criuFeatures.map((feature) => host.criu.has(feature)));
    const features = criuFeatures.filter((_, index) => has[index]);
    return good('criu', `${release} (${path})${features.length === 0 ? '' : `: ${features.join(', ')}`}`);
  } catch (error) {
    return bad(
      'criu',
      messageOf(error),
      'install CRIU 4.2 or newer; without it checkpoints keep the disk alone',
    );
  }
}

async function runtime({ config, runtimes }: Host): Promise<Finding> {
  try {
    const found = await runtimes.get(config.runtime.oci);
    const value = `${found.name} ${found.version} (${found.path})`;
    return found.criu
      ? good('oci-runtime', value)
      : bad(
          'oci-runtime',
          `${value}: built without CRIU`,
          'set runtime.oci = "runc", or install a crun with CRIU',
        );
  } catch (error) {
    return bad('oci-runtime', messageOf(error), 'install runc or crun, or set runtime.oci');
  }
}

/** Whether memory can be brought in while a restored container runs. A host that cannot is no worse for it: restores take longer. */
async function lazyPages(host: Host): Promise<Finding> {
  const obstacle = await hostObstacle(host);
  const from = host.config.checkpoint.lazy_from;
  if (obstacle !== undefined) return good('lazy-restore', `not possible: ${obstacle}`);
  return good('lazy-restore', from === 0 ? 'only with --lazy' : `possible, images from ${from} MiB on`);
}

/** Whether memory can be copied before a container stands still. A host that cannot is no worse for it: it stands still for longer. */
async function precopy({ criu: finder }: Host): Promise<Finding> {
  const tracks = await finder.has('mem_dirty_track').catch(() => undefined);
  if (tracks === undefined) return good('precopy', 'not possible: there is no CRIU');
  return good(
    'precopy',
    tracks ? 'possible' : 'not possible: the kernel is built without CONFIG_MEM_SOFT_DIRTY',
  );
}

async function containerd(host: Host): Promise<Finding> {
  const { address } = host.containerd;
  try {
    return good('containerd', `${await host.containerd.version()} at ${address}`);
  } catch (error) {
    return bad(
      'containerd',
      `nothing answers at ${address}: ${messageOf(error)}`,
      'start containerd, or set containerd.address',
    );
  }
}

async function plugin(host: Host): Promise<Finding> {
  const remedy =
    "stasis setup adds it to containerd's configuration (--dry-run shows what it would write), and restarts containerd";
  try {
    const found = await host.containerd.plugins([
      `type==io.containerd.snapshotter.v1,id==${snapshotterName}`,
    ]);
    const entry = found[0];
    if (entry === undefined)
      return bad('snapshotter-plugin', `containerd has no snapshotter ${snapshotterName}`, remedy);
    if (entry.initErr !== undefined) return bad('snapshotter-plugin', entry.initErr.message, remedy);
    return good('snapshotter-plugin', `${snapshotterName} is in containerd's configuration`);
  } catch {
    return bad('snapshotter-plugin', 'unknown: containerd does not answer', 'start containerd');
  }
}

async function cgroups(): Promise<Finding> {
  const root = await statfs('/sys/fs/cgroup').catch(() => undefined);
  if (root === undefined) return bad('cgroups', 'not mounted', 'mount a cgroup hierarchy at /sys/fs/cgroup');
  return good('cgroups', root.type === CGROUP2_SUPER_MAGIC ? 'version 2' : 'version 1');
}

async function staging({ staging: folder }: Host): Promise<Finding> {
  const { type, bavail, bsize } = await statfs(folder);
  const value = `${folder}: ${size(bavail * bsize)} free`;
  return type === 0x01021994
    ? good('staging', value)
    : bad(
        'staging',
        `${value}, not a tmpfs`,
        'set checkpoint.staging_dir to a folder on a tmpfs: dumps freeze a container for less time there',
      );
}
