// Snapshots of a containerd whose database was lost, while its UUID stayed. Its collector would remove all of them, as the new
// database knows none. So what is older than that database and not known to it is not listed, until somebody adopts or drops it.
import { MAX_VALUE } from '../src/zfs/names.ts';
import { lostProperty } from './format.ts';
import { isLive, type Node } from './index.ts';
import type { Pool } from './pool.ts';
import { own } from './properties.ts';

/** Which of the nodes were lost before this start. @param nodes all that there are; changed */
export async function settleLost(pool: Pool, nodes: readonly Node[]): Promise<void> {
  const lost = await readLost(pool);
  for (const node of nodes) {
    const { snapshot, state } = node;
    const before = snapshot === undefined ? undefined : lost.get(snapshot.owner);
    node.lost = before !== undefined && state === 'live' && isOlder(node, before);
  }
}

/**
 * Takes the snapshots of a containerd out of use that are older than its database. One property on the root says it, so it is so at once
 * and whole.
 * @param before when the database was made, in seconds since 1970
 */
export async function lose(pool: Pool, owner: string, before: number): Promise<Node[]> {
  const gone = [...pool.index.list(owner)].filter((node) => isOlder(node, before));
  if (gone.length === 0) return [];
  await writeLost(pool, (await readLost(pool)).set(owner, before));
  for (const node of gone) pool.index.change(node, { lost: true });
  return gone;
}

/** Puts them back into use, where the database is there again: but for those whose name another has by now. */
export async function find(pool: Pool, owner: string): Promise<Node[]> {
  const { index } = pool;
  const lost = [...index.nodes()].filter((node) => node.lost && node.snapshot?.owner === owner);
  if (lost.length === 0) return [];
  if (lost.some(({ snapshot }) => index.current(owner, snapshot?.name ?? '') !== undefined)) return [];
  const all = await readLost(pool);
  all.delete(owner);
  await writeLost(pool, all);
  for (const node of lost) index.change(node, { lost: false });
  return lost;
}

/** Snapshots of a containerd that are in use; the oldest first. */
export function inUse(pool: Pool, owner: string): Node[] {
  return [...pool.index.list(owner)].filter(isLive).toSorted((a, b) => Number(createdAt(a) - createdAt(b)));
}

function createdAt({ snapshot }: Node): bigint {
  return snapshot?.created.seconds ?? 0n;
}

function isOlder(node: Node, before: number): boolean {
  return createdAt(node) < BigInt(Math.floor(before));
}

async function readLost({ zfs, layout }: Pool): Promise<Map<string, number>> {
  const types = ['filesystem'] as const;
  const [root] = await zfs.list({ root: layout.root, depth: 0, types, properties: [lostProperty] });
  const text = (root === undefined ? undefined : own(root.properties, lostProperty)) ?? '';
  const entries = text.split(',').map((entry) => /^(\S+) (\d+)$/.exec(entry));
  return new Map(entries.flatMap((match) => (match === null ? [] : [[match[1] ?? '', Number(match[2])]])));
}

/** The last ones, as far as they fit. */
async function writeLost({ zfs, layout }: Pool, lost: ReadonlyMap<string, number>): Promise<void> {
  const entries = [...lost].map(([owner, before]) => `${owner} ${Math.floor(before)}`);
  while (entries.join().length > MAX_VALUE) entries.shift();
  if (entries.length === 0)
    await zfs.inherit(layout.root, lostProperty); // zfs-fuse sets no empty value
  else await zfs.set(layout.root, { [lostProperty]: entries.join() });
}
