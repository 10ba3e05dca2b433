// The JSON that --json prints: camelCase names, sizes in bytes and times in nanoseconds as numbers, instants in
// RFC 3339, kinds as words, absent things as null. A contract of its own: scripts depend on it.
import {
  type Checkpoint,
  type ContainerSummary,
  type Disk,
  DiskKind,
  type CheckpointUsage,
  DiskUsage,
  type Filling,
  MemoryKind,
  type RestoreResult,
} from '../proto/gen/stasis/stasis.ts';
import { rfc3339 } from '../units.ts';

const memoryKinds: Record<number, string> = {
  [MemoryKind.MEMORY_NONE]: 'none',
  [MemoryKind.MEMORY_IMAGE]: 'image',
  [MemoryKind.MEMORY_EXTERNAL]: 'external',
};
const diskKinds: Record<number, string> = {
  [DiskKind.DISK_SNAPSHOT]: 'snapshot',
  [DiskKind.DISK_DIFF]: 'diff',
  [DiskKind.DISK_NONE]: 'none',
};

export function checkpointView(checkpoint: Checkpoint) {
  const { timings } = checkpoint;
  return {
    id: checkpoint.id,
    namespace: checkpoint.namespace,
    container: checkpoint.container,
    name: checkpoint.name,
    createdAt: rfc3339(checkpoint.createdAt),
    memory: memoryKinds[checkpoint.memory] ?? 'unknown',
    memoryBytes: Number(checkpoint.memoryBytes),
    memoryError: orNull(checkpoint.memoryError),
    disk: diskKinds[checkpoint.disk] ?? 'unknown',
    snapshot: orNull(checkpoint.snapshot),
    uniqueBytes: Number(checkpoint.uniqueBytes),
    writtenBytes: checkpoint.writtenBytes < 0n ? null : Number(checkpoint.writtenBytes),
    unchangedSince: orNull(checkpoint.unchangedSince),
    origin: orNull(checkpoint.origin),
    set: orNull(checkpoint.setId),
    storing: checkpoint.storing,
    storeError: orNull(checkpoint.storeError),
    image: orNull(checkpoint.image),
    runtime: orNull(checkpoint.runtime),
    timings:
      timings === undefined
        ? null
        : {
            frozenNs: Number(timings.frozenNs),
            freezeNs: Number(timings.freezeNs),
            dumpNs: Number(timings.dumpNs),
            syncNs: Number(timings.syncNs),
            snapshotNs: Number(timings.snapshotNs),
            storeNs: Number(timings.storeNs),
            totalNs: Number(timings.totalNs),
          },
  };
}

export function restoreView(result: RestoreResult) {
  return {
    container: result.container,
    checkpoint: orNull(result.checkpoint),
    pid: result.pid,
    memory: result.memory,
    lazy: result.lazy,
    totalNs: Number(result.totalNs),
    stopNs: Number(result.stopNs),
    diskNs: Number(result.diskNs),
    createNs: Number(result.createNs),
    startNs: Number(result.startNs),
  };
}

export function diskView(disk: Disk) {
  return {
    dataset: disk.dataset,
    namespace: disk.namespace,
    container: disk.container,
    current: disk.current,
    originCheckpointId: orNull(disk.originCheckpointId),
    createdAt: rfc3339(disk.createdAt),
    usedBytes: Number(disk.usedBytes),
    foreign: disk.foreign,
    anew: disk.anew,
  };
}

export function containerView(container: ContainerSummary) {
  return {
    namespace: container.namespace,
    name: container.name,
    exists: container.exists,
    status: orNull(container.status),
    pid: container.pid === 0 ? null : container.pid,
    image: orNull(container.image),
    snapshotter: orNull(container.snapshotter),
    disks: container.disks.map(diskView),
    checkpoints: container.checkpoints.map(checkpointView),
    filling: fillingView(container.filling),
    shimSilent: orNull(container.shimSilent),
  };
}

function fillingView(filling: Filling | undefined) {
  if (filling === undefined) return null;
  return {
    checkpoint: filling.checkpoint,
    doneBytes: Number(filling.doneBytes),
    totalBytes: Number(filling.totalBytes),
    stalledSince: rfc3339(filling.stalledSince),
    lost: orNull(filling.lost),
  };
}

export function usageView(usage: DiskUsage) {
  return {
    dataset: usage.dataset,
    kind: usage.kind,
    container: orNull(usage.container),
    uniqueBytes: Number(usage.uniqueBytes),
    sharedBytes: Number(usage.sharedBytes),
    referencedBytes: Number(usage.referencedBytes),
    checkpoint: orNull(usage.checkpoint),
    waitsFor: usage.waitsFor,
    expiresAt: rfc3339(usage.expiresAt),
  };
}

export function checkpointUsageView(usage: CheckpointUsage) {
  return {
    namespace: usage.namespace,
    container: usage.container,
    name: usage.name,
    uniqueBytes: Number(usage.uniqueBytes),
    sharedBytes: Number(usage.sharedBytes),
    referencedBytes: Number(usage.referencedBytes),
  };
}

function orNull(text: string): string | null {
  return text === '' ? null : text;
}
