// A diff of a few changed files in a large root file system: ours, and the one of containerd that walks both trees.
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Containerd, NamespaceClient } from '../../../src/containerd/client.ts';
import type { Mount } from '../../../src/proto/gen/containerd/mount.ts';
import { mount, unmount } from '../../../src/sys/mount.ts';
import { median, type Options, report, run } from '../measure.ts';

/** How much is compared, and the rows that say it. */
interface Size {
  readonly row: string;
  readonly folders: number;
  readonly changed: number;
}
/** 1 GB, as the row is asked for. */
export const whole: Size = { row: 'diff-100', folders: 500, changed: 100 };
/** 100 MB and ten changes: what a pool on zfs-fuse comes to the end of. */
export const tenth: Size = { row: 'diff-100-tenth', folders: 50, changed: 10 };
const FILES_EACH = 100;
/** Bytes of a file. */
const FILE_SIZE = 20 * 1024;
/** zfs-fuse may lock up under a walk through all of it, and then nothing would ever answer. */
const TIMEOUT_MS = 300_000;
const state = process.env['STASIS_STATE'] ?? '';
const labels = { 'containerd.io/gc.root': new Date().toISOString() };

/** What is compared: a layer, and a container on it. */
interface Pair {
  readonly left: readonly Mount[];
  readonly right: readonly Mount[];
  /** Where the container's files are. */
  readonly folder: string;
  close(): Promise<void>;
}

export async function diffOfFew(
  containerd: Containerd,
  namespace: string,
  size: Size,
  options: Options,
): Promise<void> {
  const runs = options.runs ?? 5;
  const samples = { ours: [] as number[], walking: [] as number[], overlayfs: [] as number[] };
  const client = containerd.namespace(namespace);
  const zfs = await pairOn(client, 'stasis', 'ours', size);
  // On zfs-fuse, to ask for a file's attributes makes it a hidden folder for them: the walk, which asks for all, would have changed
  // what ours then compares.
  const walked = await pairOn(client, 'stasis', 'walked', size);
  const overlay = await pairOn(client, 'overlayfs', 'overlayfs', size);
  // An option that our differ does not know: containerd then asks its own.
  const foreign = (mounts: readonly Mount[]): Mount[] =>
    mounts.map((each) => ({ ...each, options: [...each.options, 'noatime'] }));
  await containerd.withLease(namespace, async (leased) => {
    for (let n = 0; n <= runs; n++) {
      change(zfs.folder, size);
      change(walked.folder, size);
      change(overlay.folder, size);
      const ours = await diff(leased, zfs.left, zfs.right);
      const walking = await diff(leased, foreign(walked.left), foreign(walked.right));
      const overlayfs = await diff(leased, overlay.left, overlay.right);
      if (n === 0) continue; // warm-up: folders are read from disk
      samples.ours.push(ours);
      samples.walking.push(walking);
      samples.overlayfs.push(overlayfs);
    }
  });
  for (const pair of [overlay, walked, zfs]) await pair.close();
  const row = { unit: 'ms', ours: median(samples.ours), runs };
  const tell = (name: string, peer: readonly number[], peerName: string, target?: number): void =>
    report(
      { ...row, name, peer: median(peer), peerName, ...(target === undefined ? {} : { target }) },
      options,
    );
  tell(size.row, samples.walking, "containerd's walking differ on such datasets", 0.2);
  tell(`${size.row}-overlayfs`, samples.overlayfs, "containerd's walking differ on overlayfs");
}

async function pairOn(client: NamespaceClient, snapshotter: string, name: string, size: Size): Promise<Pair> {
  const [base, view, key] = [`bench-diff-base-${name}`, `bench-diff-view-${name}`, `bench-diff-${name}`];
  const extract = `extract-${base}`;
  const made = await client.snapshots.prepare({ snapshotter, key: extract, parent: '', labels });
  await mounted(made.mounts, (folder) => fill(folder, size));
  await client.snapshots.commit({ snapshotter, key: extract, name: base, labels, parent: '' });
  const { mounts: left } = await client.snapshots.view({ snapshotter, key: view, parent: base, labels });
  const { mounts: right } = await client.snapshots.prepare({ snapshotter, key, parent: base, labels });
  const folder = join(state, `data/bench-diff-${name}`);
  mkdirSync(folder);
  for (const each of right) await mount({ ...each, target: folder });
  const close = async (): Promise<void> => {
    await unmount(folder);
    rmdirSync(folder);
    for (const each of [key, view, base]) await client.snapshots.remove({ snapshotter, key: each });
  };
  return { left, right, folder, close };
}

async function mounted(mounts: readonly Mount[], work: (folder: string) => void): Promise<void> {
  const target = join(state, `data/bench-${randomUUID()}`);
  mkdirSync(target);
  for (const each of mounts) await mount({ ...each, target });
  work(target);
  run('sync', '-f', target);
  await unmount(target);
  rmdirSync(target);
}

const path = (folder: string, at: number, file: number): string =>
  join(folder, `folder-${at}`, `file-${file}`);

function fill(folder: string, { folders }: Size): void {
  for (let at = 0; at < folders; at++) {
    mkdirSync(join(folder, `folder-${at}`));
    const content = randomBytes(FILE_SIZE);
    for (let file = 0; file < FILES_EACH; file++) writeFileSync(path(folder, at, file), content);
  }
}

/** The same files each time, with other content. */
function change(folder: string, { folders, changed }: Size): void {
  for (let at = 0; at < changed; at++)
    writeFileSync(path(folder, at * (folders / changed), 7), randomBytes(FILE_SIZE));
}

async function diff(
  client: NamespaceClient,
  left: readonly Mount[],
  right: readonly Mount[],
): Promise<number> {
  const begin = process.hrtime.bigint();
  const request = {
    left: [...left],
    right: [...right],
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    ref: `bench-${randomUUID()}`,
    labels: {},
    sourceDateEpoch: undefined,
  };
  await client.diff.diff(request, { timeoutMs: TIMEOUT_MS });
  return Number(process.hrtime.bigint() - begin) / 1e6;
}
