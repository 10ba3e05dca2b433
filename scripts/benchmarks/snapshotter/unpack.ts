// Unpacking an image of twelve layers through containerd, beside tar on the same blobs.
import { mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NamespaceClient } from '../../../src/containerd/client.ts';
import { downloadContent } from '../../../src/containerd/content.ts';
import type { Descriptor } from '../../../src/proto/gen/containerd/descriptor.ts';
import { Busy } from '../../../src/zfs/errors.ts';
import type { Zfs } from '../../../src/zfs/zfs.ts';
import { median, type Options, report, run } from '../measure.ts';

const image = 'docker.io/bench/debian:latest';
const project = join(import.meta.dirname, '../../..');
const state = process.env['STASIS_STATE'] ?? '';
const root = process.env['STASIS_ROOT'] ?? '';

interface Manifest {
  readonly layers: readonly { readonly mediaType: string; readonly digest: string; readonly size: number }[];
}

export async function unpackImage(client: NamespaceClient, zfs: Zfs, options: Options): Promise<void> {
  const runs = options.runs ?? 3;
  const layers = await importLayers(client);
  const samples = { ours: [] as number[], bare: [] as number[] };
  for (let n = 0; n <= runs; n++) {
    const [ours, bare] = [await unpack(client, layers, n), await untar(zfs, layers)];
    if (n === 0) continue; // warm-up: the blobs are read from disk
    samples.ours.push(ours);
    samples.bare.push(bare);
  }
  run('ctr', '-n', client.namespace, 'images', 'rm', '--sync', image);
  const values = { ours: median(samples.ours), peer: median(samples.bare) };
  const name = 'unpack-12';
  report({ name, unit: 'ms', ...values, runs, peerName: 'tar and sync, one dataset', target: 1.5 }, options);
}

async function importLayers(client: NamespaceClient): Promise<Descriptor[]> {
  const file = join(state, 'data/bench-image.tar');
  run(join(project, 'scripts/lib/debian-image'), '--name', image, file);
  // What is unpacked at the import is overlayfs's: our snapshots are made by the measure alone.
  run('ctr', '-n', client.namespace, 'images', 'import', '--snapshotter', 'overlayfs', file);
  rmSync(file);
  const { image: found } = await client.images.get({ name: image });
  const manifest = await json<Manifest & { manifests?: Manifest['layers'] }>(
    client,
    found?.target?.digest ?? '',
  );
  const [only] = manifest.manifests ?? [];
  const { layers } = only === undefined ? manifest : await json<Manifest>(client, only.digest);
  return layers.map(({ mediaType, digest, size }) => ({
    mediaType,
    digest,
    size: BigInt(size),
    annotations: {},
  }));
}

async function json<T>(client: NamespaceClient, digest: string): Promise<T> {
  const pieces: Uint8Array[] = [];
  for await (const bytes of downloadContent(client, digest)) pieces.push(bytes);
  return JSON.parse(Buffer.concat(pieces).toString()) as T;
}

/** What containerd's unpacker asks for each layer, under names of its own so that nothing is there already. */
async function unpack(client: NamespaceClient, layers: readonly Descriptor[], nth: number): Promise<number> {
  const snapshotter = 'stasis';
  const labels = { 'containerd.io/gc.root': new Date().toISOString() };
  const names: string[] = [];
  const begin = process.hrtime.bigint();
  let parent = '';
  for (const [at, diff] of layers.entries()) {
    const key = `extract-${nth}-${at}`;
    const name = `bench-${nth}-${at}`;
    const { mounts } = await client.snapshots.prepare({ snapshotter, key, parent, labels });
    await client.diff.apply({ diff, mounts, payloads: {}, syncFs: false });
    await client.snapshots.commit({ snapshotter, key, name, labels, parent: '' });
    names.push(name);
    parent = name;
  }
  const took = Number(process.hrtime.bigint() - begin) / 1e6;
  for (const key of names.reverse()) await client.snapshots.remove({ snapshotter, key });
  return took;
}

/** Whiteouts come out as files of that name: tar does not know them. */
async function untar(zfs: Zfs, layers: readonly Descriptor[]): Promise<number> {
  const dataset = `${root}/bench-untar`;
  const folder = join(state, 'data/bench-untar');
  mkdirSync(folder);
  await zfs.create(dataset, { properties: { mountpoint: folder } });
  const blobs = join(state, 'data/containerd/io.containerd.content.v1.content/blobs');
  const begin = process.hrtime.bigint();
  for (const { digest } of layers) {
    const blob = join(blobs, digest.replace(':', '/'));
    run(
      'tar',
      '-xpf',
      blob,
      '--recursive-unlink',
      '--numeric-owner',
      '--xattrs',
      '--xattrs-include=*',
      '-C',
      folder,
    );
  }
  run('sync', '-f', folder);
  const took = Number(process.hrtime.bigint() - begin) / 1e6;
  run('umount', folder);
  for (let left = 50; ; left--) {
    try {
      await zfs.destroyIdempotent(dataset);
      break;
    } catch (error) {
      if (!(error instanceof Busy) || left === 0) throw error;
      await sleep(100); // an unmount takes effect a little after it has returned
    }
  }
  rmdirSync(folder);
  return took;
}
