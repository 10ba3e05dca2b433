import type { Node } from './index.ts';
import type { Pool } from './pool.ts';
import { ROOTFS, type Snapshot, splitName } from './snapshot.ts';

/** A container's disk as it is now. */
export interface ContainerDisk {
  /** containerd's name of the snapshot. */
  readonly name: string;
  readonly dataset: string;
  /** Path of its files; mounted when the container was prepared, and again by `mounts`. */
  readonly rootfs: string;
  readonly generation: number;
  readonly parent: string;
  /** The ZFS snapshot that it is a clone of. */
  readonly origin: string | undefined;
}

/** The disk of the container that has this snapshot key in containerd's namespace. */
export function findDisk(
  pool: Pool,
  owner: string,
  namespace: string,
  key: string,
): ContainerDisk | undefined {
  let found: (Node & { snapshot: Snapshot }) | undefined;
  for (const node of pool.index.list(owner)) {
    const { snapshot } = node;
    if (snapshot.kind !== 'active' || !snapshot.name.endsWith(`/${key}`)) continue;
    const split = splitName(snapshot.name);
    if (split.namespace === namespace && split.key === key) found = node;
  }
  if (found === undefined) return undefined;
  const { dataset, origin, snapshot } = found;
  const { name, generation, parent } = snapshot;
  return {
    name,
    dataset,
    rootfs: `${pool.mounter.mountpoint(dataset)}/${ROOTFS}`,
    generation,
    parent,
    origin,
  };
}
