import { createReadStream, createWriteStream } from 'node:fs';
import { chmod, stat } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { pipeline } from 'node:stream/promises';
import type { NamespaceClient } from '../containerd/client.ts';
import { downloadContent, uploadContent } from '../containerd/content.ts';
import { AlreadyExists, FailedPrecondition } from '../errors.ts';
import type { Descriptor } from '../proto/gen/containerd/descriptor.ts';
import type { Mount } from '../proto/gen/containerd/mount.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import type { CheckpointEntry } from './entry.ts';
import type { Host, Report } from './host.ts';
import { diffFile, type SnapshotOrigin } from './record.ts';
import { splitMappings } from '../sys/mount-mapped.ts';
import { MemoryStore } from './memory-store.ts';
import { Steps } from './steps.ts';
import { dump, memoryRequired, notOurRuntime, stageFor, storeMemory, type Taking } from './taking.ts';
import { endTask, withPausedTask } from './task.ts';

/**
 * Checkpoints of containers whose disk is on another snapshotter (overlayfs, say): CRIU plus the writable
 * layer's diff, both under one pause. The cost grows with what the container has written.
 */

const layerMediaType = 'application/vnd.oci.image.layer.v1.tar';

/** The dataset that keeps such checkpoints: it has no root file system, only images, records and diffs. */
function datasetFor(host: Host, namespace: string, container: string): string {
  return `${host.root}/diffs/${namespace}:${container}`;
}

export async function takeOfForeignDisk(host: Host, taking: Taking): Promise<CheckpointEntry> {
  const { request, record, engine, report } = taking;
  if (record.snapshotter === '' || record.snapshotKey === '') {
    throw new FailedPrecondition(
      `container ${request.container} has no snapshot: its root file system is a plain folder`,
      {
        subject: request.container,
        reason: 'no-snapshot',
        remedy: 'run it from a bundle with: stasis run --bundle DIR ID',
      },
    );
  }
  report.warn(
    `its disk is on the snapshotter ${record.snapshotter}, so it is kept as a diff whose cost grows with what was written; ` +
      'with --snapshotter stasis it would be one ZFS snapshot',
  );
  if (request.precopy !== undefined)
    report.warn('memory is not copied beforehand: it stands still for longer anyway while the diff is made');
  const dataset = datasetFor(host, request.namespace, request.container);
  await using steps = new Steps(host.log);
  const memory = MemoryStore.datasetOf(dataset);
  await createIdempotent(host, dataset);
  const pool = await host.memory.ensure(dataset);
  const stage = await stageFor(host, taking, dataset);
  steps.undo('remove the staging folder', () => stage.remove());
  const running = taking.task?.status === Status.RUNNING || taking.task?.status === Status.PAUSED;

  const work = async (stays: () => void): Promise<CheckpointEntry> => {
    const begin = process.hrtime.bigint();
    const instant =
      engine === undefined || request.diskOnly || !running
        ? undefined
        : await dump(host, taking, engine, { stage });
    if (instant === undefined && request.requireMemory) {
      throw memoryRequired(request.container, notOurRuntime(record));
    }
    report.phase('reading what the container has written');
    const diff = `${stage.workDir}/${diffFile}`;
    await host.containerd.withLease(request.namespace, (client) => writeDiff(client, taking, diff));
    const end = process.hrtime.bigint();
    const memoryError = instant?.memoryError ?? (request.diskOnly || !running ? '' : notOurRuntime(record));
    const entry = await storeMemory(host, taking, {
      dataset,
      snapshot: `${memory}@${host.catalog.snapshotName([memory], taking.name)}`,
      pool,
      stage,
      instant: {
        memory: instant?.memory ?? false,
        memoryError,
        wasPaused: taking.task?.status === Status.PAUSED,
        freezeNs: 0n,
        dumpNs: instant?.dumpNs ?? 0n,
        syncNs: 0n,
        snapshotNs: 0n,
        frozenNs: end - begin,
        imageBytes: instant?.imageBytes ?? 0n,
        pid: instant?.pid ?? 0,
        exited: false,
        cpuNs: 0n,
        parentError: '',
      },
      files: { [diffFile]: diff },
    });
    steps.commit();
    if (request.exit) {
      stays();
      await endTask(host, request.namespace, request.container);
    }
    return entry;
  };
  const entry = running
    ? await withPausedTask(host, request.namespace, request.container, work)
    : await work(() => undefined);
  return entry;
}

async function writeDiff(client: NamespaceClient, taking: Taking, path: string): Promise<void> {
  const { record, id } = taking;
  const { parent } = await taking.origin;
  const snapshotter = record.snapshotter;
  const { mounts: right } = await client.snapshots.mounts({ snapshotter, key: record.snapshotKey });
  const viewKey = `stasis-view-${id}`;
  const { mounts: left } = await client.snapshots.view({ snapshotter, key: viewKey, parent, labels: {} });
  try {
    const { diff } = await client.diff.diff({
      left: left.map(unmapped),
      right: right.map(unmapped),
      mediaType: layerMediaType,
      ref: `stasis-${id}`,
      labels: {},
      sourceDateEpoch: undefined,
    });
    if (diff === undefined) throw new Error('containerd answered no diff');
    await pipeline(downloadContent(client, diff.digest), createWriteStream(path, { mode: 0o600 }));
    await chmod(path, 0o600);
  } finally {
    await client.snapshots.remove({ snapshotter, key: viewKey });
  }
}

/** A mount with the ids that its files have on disk, which are those that a diff holds. */
function unmapped(mount: Mount): Mount {
  return { ...mount, options: splitMappings(mount).plain.options.slice() };
}

/** Makes a new writable layer that holds what the checkpoint's diff holds. The lease of `client` keeps it. */
export async function applyDiff(
  client: NamespaceClient,
  options: { snapshotter: string; key: string; origin: SnapshotOrigin; diffPath: string },
  report: Report,
): Promise<Mount[]> {
  report.phase('writing the disk back from its diff');
  const { mounts } = await client.snapshots.prepare({
    snapshotter: options.snapshotter,
    key: options.key,
    parent: options.origin.parent,
    labels: { ...options.origin.mapping },
  });
  const hash = createHash('sha256');
  await pipeline(createReadStream(options.diffPath), hash);
  const descriptor: Descriptor = {
    mediaType: layerMediaType,
    digest: `sha256:${hash.digest('hex')}`,
    size: BigInt((await stat(options.diffPath)).size),
    annotations: {},
  };
  await uploadContent(client, descriptor, createReadStream(options.diffPath));
  await client.diff.apply({ diff: descriptor, mounts: mounts.map(unmapped), payloads: {}, syncFs: false });
  return mounts;
}

async function createIdempotent(host: Host, dataset: string): Promise<void> {
  for (const name of [`${host.root}/diffs`, dataset]) {
    try {
      await host.zfs.create(name);
    } catch (error) {
      if (!(error instanceof AlreadyExists)) throw error;
    }
  }
}
