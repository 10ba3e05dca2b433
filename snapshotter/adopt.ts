import { DeadlineExceeded, NotFound, Unavailable } from '../src/errors.ts';
import { isCorrected } from './gone.ts';
import { encodeText, property, stateValue, UNREADABLE_REMEDY } from './properties.ts';
import type { Node } from './index.ts';
import { isForeign, isUnreadable } from './index.ts';
import { changing } from './unsettled.ts';
import { lockName, type Pool } from './pool.ts';
import type { Snapshot } from './snapshot.ts';

export interface Adoption {
  readonly adopted: readonly (Node & { snapshot: Snapshot })[];
  readonly skipped: readonly { readonly dataset: string; readonly why: string }[];
  /** What was to be taken over and could not be; the others are. */
  readonly failed: readonly { readonly dataset: string; readonly error: unknown }[];
}

/**
 * Takes over datasets that carry another containerd's UUID: after a lost database, from another host, or
 * received. They are then ours, but not listed to containerd, whose collector removes what its database does not
 * know: an adopted layer is found again when its image is unpacked, an adopted container's checkpoints can be
 * restored.
 * @param datasets all that is foreign where empty
 * @throws NotFound for a name that is no dataset of the pool; nothing is changed then. What else fails is in the answer.
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
  const failed: { dataset: string; error: unknown }[] = [];
  for (const node of nodes) {
    const why = reasonToSkip(node, owner);
    if (why !== undefined) {
      if (datasets.length > 0 || isUnreadable(node)) skipped.push({ dataset: node.dataset, why });
      continue;
    }
    try {
      if (!options.dryRun && !(await take(pool, node, owner))) continue;
      adopted.push(node as Node & { snapshot: Snapshot });
    } catch (error) {
      await isCorrected(pool, error, [node]).catch(() => false); // gone by now, most likely
      failed.push({ dataset: node.dataset, error });
      if (error instanceof Unavailable || error instanceof DeadlineExceeded) break; // so would the others
    }
  }
  return { adopted, skipped, failed };
}

/** @throws NotFound for the first name that is no dataset below the root */
export function assertKnown(pool: Pool, datasets: readonly string[]): void {
  const unknown = datasets.find((dataset) => !pool.index.has(dataset));
  if (unknown === undefined) return;
  const { root } = pool.layout;
  const why = unknown.startsWith(`${root}/`) ? 'does not exist' : `is not below ${root}`;
  throw new NotFound(`dataset ${unknown} ${why}`, {
    subject: unknown,
    remedy: 'stasis adopt --dry-run shows what can be adopted, and stasis df what there is',
  });
}

function reasonToSkip(node: Node, owner: string): string | undefined {
  if (isUnreadable(node))
    return `unreadable: ${node.fault}; ${UNREADABLE_REMEDY.replace('DATASET', node.dataset)}`;
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
