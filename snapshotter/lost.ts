// Snapshots of a containerd whose database was lost, while its UUID stayed. Its collector would remove all of them, as the new
// database knows none. So what is older than that database and not known to it is not listed, until somebody adopts or drops it.
import { MAX_VALUE } from '../src/zfs/names.ts';
import { lostProperty } from './format.ts';
import { isCorrected } from './gone.ts';
import { isLive, type Node } from './index.ts';
import { lockName, type Pool } from './pool.ts';
import { own, property, stateValue } from './properties.ts';
import { splitName } from './snapshot.ts';
import { changing } from './unsettled.ts';

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

/**
 * Puts them back into use, where the database is there again. What the database between has made is unknown to it, and its
 * collector would remove that: so it is adopted, which keeps it and frees its names. Of two that were lost with one name, after two
 * databases were, the older one comes back.
 * @param known namespace and key of what the database knows of, as `namespace/key`: that stays in use, but where a lost one has them
 */
export async function find(pool: Pool, owner: string, known: ReadonlySet<string>): Promise<Node[]> {
  const { index } = pool;
  const lost = [...index.nodes()]
    .filter((node) => node.lost && node.snapshot?.owner === owner)
    .toSorted(byAge);
  if (lost.length === 0) return [];
  const back = new Map<string, Node>();
  for (const node of lost) {
    const name = node.snapshot?.name ?? '';
    if (!back.has(name)) back.set(name, node);
    else await putAway(pool, node);
  }
  const keys = new Set([...back.keys()].map(keyOf));
  for (const node of inUse(pool, owner)) {
    const key = keyOf(node.snapshot?.name ?? '');
    if (keys.has(key) || !known.has(key)) await putAway(pool, node);
  }
  const all = await readLost(pool);
  all.delete(owner);
  await writeLost(pool, all);
  for (const node of back.values()) index.change(node, { lost: false });
  return [...back.values()];
}

/** Whether a database that was made then is not the one for which snapshots of its containerd were taken out of use, but older. */
export async function isFormer(pool: Pool, owner: string, born: number): Promise<boolean> {
  const before = (await readLost(pool)).get(owner);
  return before !== undefined && Math.floor(born) < before;
}

/** Takes what a database between has made out of use, for good: the present one does not know it. */
async function putAway(pool: Pool, node: Node): Promise<void> {
  const { index, zfs, log } = pool;
  const since = Number(pool.now().seconds);
  const name = node.snapshot?.name ?? '';
  await changing(pool, { exclusive: [lockName(node.snapshot?.owner ?? '', name)] }, async () => {
    if (index.get(node.dataset) !== node || node.state !== 'live') return;
    try {
      await zfs.set(node.dataset, { [property.state]: stateValue('adopted', since) });
    } catch (error) {
      if (await isCorrected(pool, error, [node])) return;
      throw error;
    }
    index.change(node, { state: 'adopted', since, lost: false });
    log.warn('a snapshot that another database of containerd has made is adopted', {
      dataset: node.dataset,
      snapshot: name,
      remedy: 'see stasis df; stasis adopt --drop destroys it',
    });
  });
}

function keyOf(name: string): string {
  const { namespace, key } = splitName(name);
  return `${namespace}/${key}`;
}

/** Snapshots of a containerd that are in use; the oldest first. */
export function inUse(pool: Pool, owner: string): Node[] {
  return [...pool.index.list(owner)].filter(isLive).toSorted(byAge);
}

function byAge(a: Node, b: Node): number {
  return Number(createdAt(a) - createdAt(b));
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
