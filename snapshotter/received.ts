// What came by `zfs receive`. It is not in use here, whatever it says of itself: a copy of a container of this very containerd
// has that one's key and UUID, and would take its place. So until somebody adopts it, it is shown and nothing else.
import type { Row } from '../src/zfs/zfs.ts';
import { formatProperty, movedProperty } from './format.ts';
import { isUnreadable, type Node } from './index.ts';
import { interpretRows } from './load.ts';
import type { Pool } from './pool.ts';
import { own } from './properties.ts';

/**
 * Tells what was received with the whole root, which is a pool that moved to other disks, from what was received into it: all
 * of the former is in use as before. A root that came so says it until a stasisd claims it, and what is older than that moment stays
 * told apart by when it came.
 * @param nodes all that there are; changed
 */
export async function settleMoved(pool: Pool, nodes: readonly Node[]): Promise<void> {
  const { zfs, layout } = pool;
  if (!nodes.some(({ received }) => received)) return;
  const about = {
    root: layout.root,
    depth: 0,
    types: ['filesystem'],
    properties: [formatProperty, movedProperty],
  } as const;
  const [root] = await zfs.list(about);
  if (root?.properties.get(formatProperty)?.source === 'received') {
    await zfs.set(layout.root, { [movedProperty]: String(pool.now().seconds) });
    for (const node of nodes) node.received = false;
    return;
  }
  const moved = Number(own(root?.properties ?? new Map(), movedProperty) ?? 0);
  if (!(moved > 0)) return;
  const rows = await zfs.list({ root: layout.root, types: ['filesystem'], properties: ['creation'] });
  const came = new Map(
    rows.map(({ name, properties }) => [name, Number(properties.get('creation')?.value ?? Infinity)]),
  );
  for (const node of nodes) if ((came.get(node.dataset) ?? Infinity) <= moved) node.received = false;
}

/**
 * Takes into the index what came while stasisd ran: datasets of other containerds and received ones, further snapshots of such, and
 * their going. Nothing of this containerd's own changes, whatever is being made meanwhile.
 * @param listing what `readPool` answers now
 */
export async function notice(pool: Pool, listing: readonly Row[]): Promise<void> {
  const { index, layout, owners, reserved } = pool;
  const nodes = new Map(
    (await interpretRows(pool, layout.root, listing)).map((node) => [node.dataset, node]),
  );
  const isStrange = ({ received, snapshot }: Node): boolean =>
    received || (snapshot !== undefined && !owners.has(snapshot.owner));
  // What nothing here makes or destroys meanwhile.
  const mayGo = (node: Node): boolean =>
    isStrange(node) || node.lost || node.state === 'adopted' || isUnreadable(node);
  for (const node of nodes.values()) {
    const { dataset } = node;
    const above = dataset.slice(0, dataset.lastIndexOf('/'));
    const known = index.get(dataset);
    if (known === undefined) {
      const belongs = isStrange(nodes.get(above) ?? node); // a memory dataset says nothing of itself
      if (
        (isStrange(node) || isUnreadable(node) || (node.snapshot === undefined && belongs)) &&
        !reserved.has(dataset)
      )
        index.add(node);
    } else if (isStrange(known) || known.state === 'adopted' || isStrange(index.get(above) ?? known)) {
      for (const [name, { checkpoint }] of node.snapshots)
        if (!known.snapshots.has(name)) index.addSnapshot(`${dataset}@${name}`, checkpoint);
    }
  }
  for (const known of [...index.nodes()])
    if (mayGo(known) && !nodes.has(known.dataset)) {
      index.delete(known.dataset);
      index.dropRetired(known.origin);
    }
}
