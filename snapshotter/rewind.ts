import { FailedPrecondition } from '../src/errors.ts';
import type { CallOptions, Properties } from '../src/zfs/zfs.ts';
import type { Node } from './index.ts';
import { isLive } from './index.ts';
import { changing } from './unsettled.ts';
import { lockName, type Pool } from './pool.ts';
import { destroyOrMark, putAside } from './remove.ts';
import { missing } from './dataset.ts';
import { makeFromCheckpoint, sizeLimit } from './size-limit.ts';

/** A name that stands on a new dataset, and can still go back. */
export interface Rewound {
  readonly dataset: string;
  /** The dataset that the name stood on before. */
  readonly previous: string;
  /** Path of the files. */
  readonly rootfs: string;
  /** Puts the name back on the previous dataset and destroys the new one, or leaves that to a sweep. Can be called more than once. */
  undo(): Promise<void>;
  /** Puts the previous dataset aside: kept where it has checkpoints, else to the trash. */
  done(): Promise<void>;
}

/**
 * Points a name at a new clone of a ZFS snapshot. The clone carries the next generation, and the highest
 * generation is the name's dataset: so the one `zfs clone` is the whole change, and a crash leaves either.
 * @throws NotFound for the name or the snapshot; FailedPrecondition for what is no container's
 */
export async function rewind(
  pool: Pool,
  request: { owner: string; name: string; from: string; properties: Properties },
  call?: CallOptions,
): Promise<Rewound> {
  const { owner, name, from } = request;
  const exclusive = [lockName(owner, name)];
  const {
    node: made,
    rootfs,
    previous,
  } = await changing(pool, { exclusive }, async () => {
    const node = pool.index.current(owner, name);
    if (node?.snapshot === undefined) throw missing(name);
    const { kind } = node.snapshot;
    if (kind !== 'active')
      throw new FailedPrecondition(`snapshot ${name} is ${kind}, not active: it cannot be rewound`, {
        subject: name,
      });
    const generation = 1 + highest(pool.index.generations(owner, name));
    const snapshot = { ...node.snapshot, generation, updated: pool.now() };
    const extra = { ...sizeLimit(snapshot.labels), ...request.properties };
    const place = (taken: (dataset: string) => boolean): string =>
      pool.layout.placeBeside(node.dataset, taken);
    pool.rewinding.add(node);
    try {
      return {
        ...(await makeFromCheckpoint(pool, { snapshot, origin: from, extra, place }, call)),
        previous: node,
      };
    } catch (error) {
      pool.rewinding.delete(node);
      throw error;
    }
  });
  return {
    dataset: made.dataset,
    previous: previous.dataset,
    rootfs,
    undo: () =>
      changing(pool, { exclusive }, async () => {
        // What was being restored on it may still be ending: then it is out of use at once, and a sweep takes it.
        pool.rewinding.delete(previous);
        if (pool.index.has(made.dataset) && isLive(made)) await destroyOrMark(pool, made);
      }),
    done: () =>
      changing(pool, { exclusive }, async () => {
        pool.rewinding.delete(previous);
        if (isLive(previous) && pool.index.current(owner, name) !== previous) await putAside(pool, previous);
      }),
  };
}

/**
 * Puts a name back on an older dataset, where there is one and a newer: what a rewind made that was cut off is destroyed, or left
 * to a sweep.
 */
export async function undoRewind(
  pool: Pool,
  { owner, name, previous }: { owner: string; name: string; previous: string },
): Promise<void> {
  await changing(pool, { exclusive: [lockName(owner, name)] }, async () => {
    const node = pool.index.get(previous);
    if (node?.snapshot?.name !== name || node.snapshot.owner !== owner || !isLive(node)) return;
    pool.rewinding.delete(node);
    const { generation } = node.snapshot;
    for (const other of pool.index.generations(owner, name))
      if ((other.snapshot?.generation ?? 0) > generation) await destroyOrMark(pool, other);
  });
}

function highest(nodes: readonly Node[]): number {
  return Math.max(0, ...nodes.map((node) => node.snapshot?.generation ?? 0));
}
