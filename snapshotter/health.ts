import { isForeign, isUnreadable } from './index.ts';
import type { Pool } from './pool.ts';
import type { Swept } from './remove.ts';

/** How many datasets there are of each kind, and what is in the way of the index being the pool. */
export interface Health {
  /** All below the root. */
  readonly datasets: number;
  /** What the containerd that is served sees. */
  readonly snapshots: number;
  /** Disks of checkpoints. */
  readonly checkpoints: number;
  /** Removed, and not destroyed yet: in the trash, or where they stood. */
  readonly removed: number;
  /** Snapshots of other containerds, or received ones, that were in use there. */
  readonly foreign: number;
  /** Datasets that a command gave no answer about: the next change asks the pool. */
  readonly unsettled: readonly string[];
  /** Removed in memory alone, since the pool has no room to write it down. */
  readonly unmarked: readonly string[];
  /** Datasets with properties of a snapshot that cannot be understood, and why. */
  readonly unreadable: readonly { readonly dataset: string; readonly why: string }[];
  /** What the last sweep could not destroy, and why. */
  readonly undestroyed: Swept['failed'];
}

/** Reads the index; nothing is asked of the pool. @param swept what the last sweep did, if there was one */
export function health(pool: Pool, owner: string, swept: Swept | undefined): Health {
  const nodes = [...pool.index.nodes()];
  return {
    datasets: nodes.length,
    snapshots: [...pool.index.list(owner)].length,
    checkpoints: nodes.reduce(
      (sum, node) => sum + (node.snapshot === undefined ? 0 : pool.index.checkpointsOf(node).length),
      0,
    ),
    removed: nodes.filter(({ inTrash, state, received }) => !received && (inTrash || state === 'removed'))
      .length,
    foreign: nodes.filter((node) => isForeign(node, owner)).length,
    unsettled: [...pool.unsettled],
    unmarked: [...pool.unmarked].map(({ dataset }) => dataset),
    unreadable: nodes.filter(isUnreadable).map(({ dataset, fault }) => ({ dataset, why: fault ?? '' })),
    undestroyed: swept?.failed ?? [],
  };
}
