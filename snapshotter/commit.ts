import { FailedPrecondition, InvalidArgument, messageOf } from '../src/errors.ts';
import type { CallOptions } from '../src/zfs/zfs.ts';
import { correcting } from './gone.ts';
import { exists, filled, missing, rootfsOf, syncFiles } from './dataset.ts';
import type { Node } from './index.ts';
import { changing } from './unsettled.ts';
import { lockName, type Pool } from './pool.ts';
import { labelProperties, nextSet, property, toProperties } from './properties.ts';
import { changedLimit } from './size-limit.ts';
import { checkName, LAYER, type Labels, type Snapshot } from './snapshot.ts';
import { measure } from './usage.ts';

/**
 * Makes an active snapshot a parent for others under a new name: one `zfs snapshot` that carries all of it.
 * @throws AlreadyExists for the name, NotFound for the key, FailedPrecondition where it is not active
 */
export async function commit(
  pool: Pool,
  request: { owner: string; name: string; key: string; labels: Labels; parent: string },
  call?: CallOptions,
): Promise<void> {
  const { owner, name, key } = request;
  checkName(name, 'name');
  const relied = (): Node[] => pool.index.generations(owner, key);
  const exclusive = [lockName(owner, key), lockName(owner, name)];
  await changing(pool, { exclusive }, () =>
    correcting(pool, relied, async () => {
      if (pool.index.current(owner, name) !== undefined) throw exists(name);
      const node = pool.index.current(owner, key);
      const active = node?.snapshot;
      if (node === undefined || active === undefined) throw missing(key);
      if (active.kind !== 'active') {
        throw new FailedPrecondition(`snapshot ${key} is ${active.kind}, not active`, { subject: key });
      }
      if (request.parent !== '' && request.parent !== active.parent) {
        // Only the capability `rebase` would allow this, and a clone cannot change what it was cloned from.
        throw new InvalidArgument(`snapshot ${key} has the parent ${active.parent}, not ${request.parent}`, {
          subject: key,
        });
      }
      const now = pool.now();
      const committed: Snapshot = {
        ...active,
        name,
        kind: 'committed',
        labels: filled(request.labels),
        created: now,
        updated: now,
        generation: 1,
      };
      await commitNode(pool, node, committed, call);
    }),
  );
}

/** The change itself; whoever calls holds the names. */
export async function commitNode(
  pool: Pool,
  node: Node,
  committed: Snapshot,
  call: CallOptions | undefined,
): Promise<void> {
  const properties = toProperties(committed);
  const rootfs = await rootfsOf(pool, node.dataset);
  await syncFiles(pool, node.dataset, rootfs);
  await pool.zfs.snapshot([`${node.dataset}@${LAYER}`], { properties }, call);
  pool.index.addSnapshot(`${node.dataset}@${LAYER}`, undefined);
  pool.index.change(node, { snapshot: committed, labelHead: properties[property.labels] });
  node.inodes = undefined; // what was counted while it was active
  try {
    await measure(pool, node);
    await pool.mounter.unmount(node.dataset);
  } catch (error) {
    pool.log.warn('a committed layer stays mounted', { dataset: node.dataset, error: messageOf(error) });
  }
}

/**
 * Changes labels: `paths` undefined or `labels` replaces all, `labels.k` sets one, an empty value deletes it. The label of
 * a container's size limit changes the limit too, by one command before.
 * @throws NotFound; InvalidArgument for any other path, or for a limit that is no size; ResourceExhausted for a limit that
 *   has been passed
 */
export async function update(
  pool: Pool,
  request: { owner: string; name: string; labels: Labels; paths: readonly string[] | undefined },
  call?: CallOptions,
): Promise<Snapshot> {
  const { owner, name } = request;
  const relied = (): Node[] => pool.index.generations(owner, name);
  return changing(pool, { exclusive: [lockName(owner, name)] }, () =>
    correcting(pool, relied, async () => {
      const node = pool.index.current(owner, name);
      const before = node?.snapshot;
      if (node === undefined || before === undefined) throw missing(name);
      const labels = changedLabels(before.labels, request.labels, request.paths);
      const snapshot: Snapshot = { ...before, labels, updated: pool.now() };
      const properties = labelProperties(labels, snapshot.updated, nextSet(node.labelHead));
      const target = before.kind === 'committed' ? pool.index.layerOf(node) : node.dataset;
      const limit = before.kind === 'active' ? changedLimit(before.labels, labels) : undefined;
      // Where ZFS refuses it, nothing is changed: one command that sets both could set one.
      if (limit !== undefined) await pool.zfs.set(target, limit, call);
      await pool.zfs.set(target, properties, call);
      pool.index.change(node, { snapshot, labelHead: properties[property.labels] });
      return snapshot;
    }),
  );
}

function changedLabels(before: Labels, given: Labels, paths: readonly string[] | undefined): Labels {
  if (paths === undefined || paths.length === 0) return filled(given);
  let labels: Record<string, string> = { ...before };
  for (const path of paths) {
    if (path === 'labels') labels = { ...given };
    else if (path.startsWith('labels.')) labels[path.slice(7)] = given[path.slice(7)] ?? '';
    else throw new InvalidArgument(`${path} of a snapshot cannot be changed`, { subject: path });
  }
  return filled(labels);
}
