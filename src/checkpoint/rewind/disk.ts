// The disk of a rewind: a clone of the checkpoint, or the layers with what had changed in them.
import type { NamespaceClient } from '../../containerd/client.ts';
import { FailedPrecondition } from '../../errors.ts';
import type { Container } from '../../proto/gen/containerd/containers.ts';
import type { Mount } from '../../proto/gen/containerd/mount.ts';
import { applyDiff } from '../foreign.ts';
import { hasDisk } from '../find.ts';
import { forgetFormerLayer, keepingFormerLayer, pointRecord } from './former-record.ts';
import { removeSnapshot } from '../gone-already.ts';
import type { Host, Report } from '../host.ts';
import { diffFile } from '../record.ts';
import type { Rewound } from '../../../snapshotter/rewind.ts';
import { Steps } from '../steps.ts';
import type { Rewinding } from './rewinding.ts';

/** A disk that was put back. */
export interface DiskBack {
  readonly mounts: Mount[];
  /** The container's record as it now is. */
  readonly record: Container;
  /** Drops what the former disk alone needed. */
  done(): Promise<void>;
}

/** @throws FailedPrecondition where its snapshot is gone, as after `ctr snapshots rm` */
export async function assertDisk(host: Host, namespace: string, record: Container): Promise<void> {
  if (!(await hasDisk(host, namespace, record))) throw noDisk(host, record);
}

function noDisk(host: Host, record: Container): FailedPrecondition {
  return new FailedPrecondition(`container ${record.id} has no disk in ${host.root} to rewind`, {
    subject: record.id,
    reason: 'disk-not-found',
    remedy: `bring the checkpoint back under another name: stasis restore ${record.id} --as NEW`,
  });
}

/** The new disk of a container while it is being made. */
export interface DiskClone {
  readonly made: Promise<Rewound>;
  /** Waits for it, where need be, and gives the container its former disk back. Can be called more than once. */
  undo(): Promise<void>;
}

/**
 * Begins to make the disk as it was at the checkpoint. This has nothing to do with what is stopped meanwhile: a container that
 * runs works on in the dataset that it has mounted, and what of a rewind is noted of before it ended the task is undone.
 */
export function cloneDisk(host: Host, { namespace, record, entry }: Rewinding): DiskClone {
  const make = async (): Promise<Rewound> => {
    const disk = host.store.findContainer(namespace, record.snapshotKey);
    if (disk === undefined) throw noDisk(host, record);
    return host.store.rewind(disk.name, entry.snapshot);
  };
  const made = make();
  const settled = made.catch(() => undefined); // who waits for it is told
  return { made, undo: async () => (await settled)?.undo() };
}

/** @param clone where the checkpoint has a snapshot of the disk */
export async function putDiskBack(
  host: Host,
  client: NamespaceClient,
  { record, entry, memory }: Rewinding,
  clone: DiskClone | undefined,
  steps: Steps,
  report: Report,
): Promise<DiskBack> {
  const former = memory.record.container;
  const sameSpec =
    Buffer.compare(former.spec?.value ?? Buffer.alloc(0), record.spec?.value ?? Buffer.alloc(0)) === 0;
  let target: Container = sameSpec ? record : { ...record, spec: former.spec };
  const layer = entry.disk !== 'snapshot';
  const update = (container: Container): Promise<void> => pointRecord(client, container, record, { layer });
  if (clone !== undefined) {
    const rewound = await clone.made;
    if (!sameSpec) {
      steps.undo('put the former spec back', () => update(record));
      await update(target);
    }
    const { mounts } = await client.snapshots.mounts({
      snapshotter: record.snapshotter,
      key: record.snapshotKey,
    });
    return { mounts, record: target, done: () => rewound.done() };
  }
  const key = `${record.id}-${entry.id}-${Date.now().toString(36)}`;
  // The collector would take the layer that the record does not name any more, while it may still be gone back to.
  const labels = keepingFormerLayer(record);
  target = { ...target, snapshotter: former.snapshotter, snapshotKey: key, labels };
  const snapshotter = former.snapshotter;
  steps.undo('remove the new writable layer', () => removeSnapshot(client, snapshotter, key));
  const mounts = await host.containerd.withLease(client.namespace, async (leased) => {
    const diffPath = `${memory.path}/${diffFile}`;
    const made = await applyDiff(leased, { snapshotter, key, origin: memory.record, diffPath }, report);
    steps.undo('put the former record back', () => update(record));
    await update(target);
    return made;
  });
  return {
    mounts,
    record: target,
    done: () => forgetFormerLayer(client, record),
  };
}
