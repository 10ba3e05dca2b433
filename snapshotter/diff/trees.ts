import { isDeepStrictEqual } from 'node:util';
import type { ChangedObjects } from '../../src/zfs/send-stream.ts';
import type { CallOptions } from '../../src/zfs/zfs.ts';
import { missing, rootfsOf } from '../dataset.ts';
import { lockName, type Pool } from '../pool.ts';
import type { Known } from './compare.ts';
import { type Instant, takeInstant } from './instant.ts';
import { lineage, type Step } from './lineage.ts';

/** Two trees of files that do not change, and what is known of their difference beforehand. */
export interface Trees {
  readonly left: string | undefined;
  readonly right: string;
  readonly known: Known | undefined;
}

/** A snapshot's files, and the ZFS snapshot that has the same; undefined for an empty one. */
interface Side extends Omit<Instant, 'snapshot'> {
  readonly snapshot: string | undefined;
}

/**
 * Makes two snapshots of an owner readable and runs `work` on them; nothing commits or removes them meanwhile. What
 * is written to an active one meanwhile is not seen. Where one came of the other, `zfs send` tells what may differ.
 * @param left undefined: nothing
 * @throws NotFound; what zfs throws
 */
export async function withTrees<T>(
  pool: Pool,
  owner: string,
  names: { readonly left: string | undefined; readonly right: string },
  work: (trees: Trees) => Promise<T>,
  call?: CallOptions,
): Promise<T> {
  const shared = [names.left, names.right].flatMap((name) =>
    name === undefined ? [] : [lockName(owner, name)],
  );
  return pool.locks.run({ shared }, async () => {
    const sides: Side[] = [];
    try {
      for (const name of [names.right, names.left])
        if (name !== undefined) sides.push(await open(pool, owner, name));
      const [after, before] = sides as [Side, Side?];
      const comparing = compareSnapshots(pool, before?.snapshot, after.snapshot, call);
      const [known, right, left] = await allOf([comparing, after.rootfs, before?.rootfs]);
      const released = Promise.allSettled(sides.map((side) => side.release())); // what fails is tried again at the end
      try {
        return await work({ left, right, known });
      } finally {
        await released;
      }
    } finally {
      for (const side of sides) await side.close();
    }
  });
}

/** Waits for all of them, so that nothing goes on when one has failed. @throws what the first of them threw */
async function allOf<T extends readonly unknown[]>(
  works: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(works);
  return Promise.all(works);
}

async function open(pool: Pool, owner: string, name: string): Promise<Side> {
  const node = pool.index.current(owner, name);
  if (node?.snapshot === undefined) throw missing(name);
  const rootfs = await rootfsOf(pool, node.dataset);
  if (node.snapshot.kind === 'active') return takeInstant(pool, node.dataset, rootfs);
  // A View is a clone that nobody can write to.
  const nothing = async (): Promise<void> => undefined;
  return { rootfs: Promise.resolve(rootfs), snapshot: node.origin, release: nothing, close: nothing };
}

async function compareSnapshots(
  pool: Pool,
  from: string | undefined,
  to: string | undefined,
  call: CallOptions | undefined,
): Promise<Known | undefined> {
  if (from === undefined || to === undefined) return undefined;
  const now = (): readonly Step[] | undefined => lineage(from, to, (dataset) => pool.index.get(dataset));
  for (;;) {
    const steps = now();
    if (steps === undefined) return undefined;
    const changes: ChangedObjects[] = [];
    try {
      for (const step of steps) changes.push(await pool.zfs.changes(step.from, step.to, call));
      return union(changes);
    } catch (error) {
      // A sweep may have handed a snapshot in between over to another dataset meanwhile; see hand-over.ts.
      if (isDeepStrictEqual(now(), steps)) throw error;
    }
  }
}

/** What several steps changed, the last step first. */
function union(changes: readonly ChangedObjects[]): Known {
  const objects = new Set<number>();
  const contents = new Set<number>(changes.flatMap((change) => [...change.contents]));
  const plain = new Set<number>();
  for (const change of changes) {
    for (const object of change.objects) {
      // The last step that speaks of an object knows whether it has attributes now.
      if (!objects.has(object) && change.plain.has(object)) plain.add(object);
      objects.add(object);
    }
  }
  return { objects, contents, plain, anyAttributes: changes.some(({ anyAttributes }) => anyAttributes) };
}
