// Group `snapshotter`: the calls that containerd makes for a container, through containerd's own API, beside its overlayfs
// snapshotter and beside the bare `zfs` commands. What a row's name means is in docs/benchmarks.md.
import { rmdir } from 'node:fs/promises';
import { Containerd, type NamespaceClient } from '../../src/containerd/client.ts';
import { exec } from '../../src/sys/command.ts';
import { openZfs, type Zfs } from '../../src/zfs/zfs.ts';
import { destroy } from './clone-bare.ts';
import { median, type Options, report } from './measure.ts';
import { diffOfFew, tenth, whole } from './snapshotter/diff.ts';
import { manySnapshots } from './snapshotter/many.ts';
import { unpackImage } from './snapshotter/unpack.ts';

const namespace = 'bench-snapshotter';
const STAT_CALLERS = 64;
const STAT_CALLS = 100;
const root = process.env['STASIS_ROOT'] ?? '';
let serial = 0;

const since = (begin: bigint): number => Number(process.hrtime.bigint() - begin) / 1e6;

/** An empty layer to stand on; containerd's collector would take what is not labelled so. */
async function makeLayer(client: NamespaceClient, snapshotter: string): Promise<string> {
  const labels = { 'containerd.io/gc.root': new Date().toISOString() };
  const [key, name] = [`layer-${serial++}`, `base-${process.pid}`];
  await client.snapshots.prepare({ snapshotter, key, parent: '', labels });
  await client.snapshots.commit({ snapshotter, key, name, labels, parent: '' });
  return name;
}

/** What a container costs from its creation to its removal, in milliseconds. */
async function life(client: NamespaceClient, snapshotter: string, parent: string): Promise<number> {
  const key = `container-${serial++}`;
  const labels = { 'containerd.io/gc.root': new Date().toISOString() };
  const begin = process.hrtime.bigint();
  await client.snapshots.prepare({ snapshotter, key, parent, labels });
  await client.snapshots.mounts({ snapshotter, key });
  await client.snapshots.remove({ snapshotter, key });
  return since(begin);
}

/** The same by hand: a clone, and on the way out what Remove does on either kind of ZFS. */
async function bare(zfs: Zfs, snapshot: string): Promise<number> {
  const target = `${root}/bench-${serial++}`;
  const fuse = zfs.kind === 'zfs-fuse';
  const mountpoint = fuse ? `/tmp/stasis-bench-${process.pid}-${serial}` : 'legacy';
  const begin = process.hrtime.bigint();
  await zfs.clone(snapshot, target, { properties: { mountpoint } });
  if (fuse) await zfs.set(target, { 'stasis:state': 'removed 0' });
  else await zfs.rename(target, `${root}/trash/bench-${serial++}`);
  const took = since(begin);
  if (fuse) await exec('umount', [mountpoint]);
  if (fuse) await rmdir(mountpoint);
  destroy(fuse ? target : `${root}/trash/bench-${serial - 1}`);
  return took;
}

async function prepareRemove(
  client: NamespaceClient,
  zfs: Zfs,
  runs: number,
  options: Options,
): Promise<void> {
  const empty = `${root}/bench-empty`;
  await zfs.create(empty, { properties: { mountpoint: 'none', canmount: 'off' } });
  await zfs.snapshot([`${empty}@layer`]);
  const ours = await makeLayer(client, 'stasis');
  const theirs = await makeLayer(client, 'overlayfs');
  const samples = { ours: [] as number[], bare: [] as number[], overlayfs: [] as number[] };
  for (let n = 0; n <= runs; n++) {
    const sample = {
      ours: await life(client, 'stasis', ours),
      bare: await bare(zfs, `${empty}@layer`),
      overlayfs: await life(client, 'overlayfs', theirs),
    };
    if (n === 0) continue; // warm-up
    samples.ours.push(sample.ours);
    samples.bare.push(sample.bare);
    samples.overlayfs.push(sample.overlayfs);
  }
  await client.snapshots.remove({ snapshotter: 'stasis', key: ours });
  await client.snapshots.remove({ snapshotter: 'overlayfs', key: theirs });
  await zfs.destroyIdempotent(empty, { recursive: true });
  const tell = (name: string, peer: readonly number[], peerName: string, target?: number): void => {
    if (!name.includes(options.only)) return;
    const limit = target === undefined ? {} : { target };
    const values = { ours: median(samples.ours), peer: median(peer) };
    report({ name, unit: 'ms', ...values, runs, peerName, ...limit }, options);
  };
  tell('prepare-remove', samples.bare, 'the bare zfs commands', 1.3);
  tell('prepare-remove-overlayfs', samples.overlayfs, "containerd's overlayfs snapshotter");
}

/** The slowest hundredth of Stat calls, in milliseconds, and how many were answered a second. */
async function stats(client: NamespaceClient, snapshotter: string): Promise<{ p99: number; rate: number }> {
  const key = await makeLayer(client, snapshotter);
  const times: number[] = [];
  const caller = async (calls: number): Promise<void> => {
    for (let at = 0; at < calls; at++) {
      const begin = process.hrtime.bigint();
      await client.snapshots.stat({ snapshotter, key });
      times.push(since(begin));
    }
  };
  await caller(200); // warm-up
  times.length = 0;
  const begin = process.hrtime.bigint();
  await Promise.all(Array.from({ length: STAT_CALLERS }, () => caller(STAT_CALLS)));
  const rate = times.length / (since(begin) / 1000);
  await client.snapshots.remove({ snapshotter, key });
  times.sort((a, b) => a - b);
  return { p99: times[Math.floor(times.length * 0.99)] ?? 0, rate };
}

export default async function main(options: Options): Promise<void> {
  const wanted = (...names: string[]): boolean => names.some((name) => name.includes(options.only));
  const containerd = new Containerd(process.env['CONTAINERD_ADDRESS'] ?? '');
  const client = containerd.namespace(namespace);
  const zfs = await openZfs(exec);
  try {
    if (wanted('prepare-remove', 'prepare-remove-overlayfs'))
      await prepareRemove(client, zfs, options.runs ?? 100, options);
    if (wanted('stat-64-containerd', 'stat-64-containerd-rate')) {
      const [ours, theirs] = [await stats(client, 'stasis'), await stats(client, 'overlayfs')];
      const common = { runs: STAT_CALLERS * STAT_CALLS, peerName: "containerd's overlayfs snapshotter" };
      const tell = (name: string, unit: string, a: number, b: number): void =>
        report({ name, unit, ours: a, peer: b, ...common }, options);
      tell('stat-64-containerd', 'ms', ours.p99, theirs.p99);
      tell('stat-64-containerd-rate', '/s', ours.rate, theirs.rate);
    }
    if (wanted('unpack-12')) await unpackImage(client, zfs, options);
    for (const size of [tenth, whole])
      if (wanted(size.row, `${size.row}-overlayfs`)) await diffOfFew(containerd, namespace, size, options);
    if (wanted('load-10000', 'memory-10000', 'stat-64', 'stat-64-rate')) await manySnapshots(options);
  } finally {
    containerd.close();
  }
}
