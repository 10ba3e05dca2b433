import { NotFound } from '../src/errors.ts';
import { encodeText, property, stateValue } from './properties.ts';
import type { Node } from './index.ts';
import { isForeign } from './index.ts';
import { changing } from './unsettled.ts';
import { lockName, type Pool } from './pool.ts';
import type { Snapshot } from './snapshot.ts';

export interface Adoption {
  readonly adopted: readonly (Node & { snapshot: Snapshot })[];
  readonly skipped: readonly { readonly dataset: string; readonly why: string }[];
}

/**
 * Takes over datasets that carry another containerd's UUID: after a lost database, from another host, or
 * received. They are then ours, but not listed to containerd, whose collector removes what its database does not
 * know: an adopted layer is found again when its image is unpacked, an adopted container's checkpoints can be
 * restored.
 * @param datasets all that is foreign where empty
 * @throws NotFound for a name that is no dataset of the pool; nothing is changed then
 */
export async function adopt(
  pool: Pool,
  owner: string,
  datasets: readonly string[],
  options: { dryRun: boolean },
): Promise<Adoption> {
  assertKnown(pool, datasets);
  const nodes = [...pool.index.nodes()].filter(
    (node) => datasets.length === 0 || datasets.includes(node.dataset),
  );
  const adopted: (Node & { snapshot: Snapshot })[] = [];
  const skipped: { dataset: string; why: string }[] = [];
  for (const node of nodes) {
    const why = reasonToSkip(node, owner);
    if (why === undefined) {
      if (!options.dryRun && !(await take(pool, node, owner))) continue;
      adopted.push(node as Node & { snapshot: Snapshot });
    } else if (datasets.length > 0) {
      skipped.push({ dataset: node.dataset, why });
    }
  }
  return { adopted, skipped };
}

/** @throws NotFound for the first name that is no dataset below the root */
export function assertKnown(pool: Pool, datasets: readonly string[]): void {
  const unknown = datasets.find((dataset) => !pool.index.has(dataset));
  if (unknown === undefined) return;
  throw new NotFound(`dataset ${unknown} is not below ${pool.layout.root}`, {
    subject: unknown,
    remedy: 'stasis adopt --dry-run shows what can be adopted, and stasis df what there is',
  });
}

function reasonToSkip(node: Node, owner: string): string | undefined {
  if (node.snapshot === undefined) return 'it is no container or layer';
  if (node.snapshot.owner === owner && !node.received && !node.lost) return "it is this containerd's already";
  if (node.state === 'adopted' || isForeign(node, owner)) return undefined;
  return 'it was removed where it was in use';
}

/**
 * The state first: a dataset that is ours and live would be listed to containerd, and removed by it.
 * @returns false where somebody else took it, or removed it, meanwhile
 */
async function take(pool: Pool, node: Node, owner: string): Promise<boolean> {
  const { snapshot } = node;
  if (snapshot === undefined) return false;
  return changing(pool, { exclusive: [lockName(snapshot.owner, snapshot.name)] }, async () => {
    if (pool.index.get(node.dataset) !== node || reasonToSkip(node, owner) !== undefined) return false;
    const since = Number(pool.now().seconds);
    const holder = snapshot.kind === 'committed' ? pool.index.layerOf(node) : node.dataset;
    await pool.zfs.set(node.dataset, { [property.state]: stateValue('adopted', since) });
    pool.index.change(node, { state: 'adopted', since });
    await pool.zfs.set(holder, { [property.owner]: encodeText(owner) });
    pool.index.change(node, { snapshot: { ...snapshot, owner }, received: false, lost: false });
    return true;
  });
}
