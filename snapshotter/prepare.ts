import { AlreadyExists, InvalidArgument, NotFound } from '../src/errors.ts';
import type { CallOptions, Properties } from '../src/zfs/zfs.ts';
import { isLayerOf, spelledChain } from './chain.ts';
import { commitNode } from './commit.ts';
import { exists, filled, makeDataset, type Made } from './dataset.ts';
import { asksForMapping, cannotMap, mappingLabels } from './idmap.ts';
import type { Node } from './index.ts';
import { changing } from './unsettled.ts';
import { lockName, type Pool } from './pool.ts';
import { destroyOrMark } from './remove.ts';
import { makeFromCheckpoint, makeLimited, sizeLabels, sizeLimit } from './size-limit.ts';
import { CHECKPOINT_LABEL, checkName, isExtraction, REF_LABEL, type Labels } from './snapshot.ts';

export interface PrepareRequest {
  readonly owner: string;
  readonly name: string;
  readonly kind: 'active' | 'view';
  /** Empty: none. */
  readonly parent: string;
  readonly labels: Labels;
}

/**
 * Makes a snapshot on its parent, or on a checkpoint's disk where the labels name one: one `zfs` command.
 * @returns its dataset, mounted, and the path of its files
 * @throws AlreadyExists for the name, or for a layer that is in the pool already; NotFound InvalidArgument for the
 *   parent; what zfs throws
 */
export async function prepare(pool: Pool, given: PrepareRequest, call?: CallOptions): Promise<Made> {
  const request = { ...given, labels: trusted(given) };
  const { owner, name, parent } = request;
  checkName(name, 'key');
  const shared = parent === '' ? [] : [lockName(owner, parent)];
  return changing(pool, { exclusive: [lockName(owner, name)], shared }, async () => {
    if (pool.index.current(owner, name) !== undefined) throw exists(name);
    const origin = originFor(pool, request);
    await reuseLayer(pool, request, call);
    const now = pool.now();
    const labels = filled({ ...inherited(pool, origin, request.labels), ...request.labels });
    const mapped = asksForMapping(labels);
    const snapshot = {
      name,
      kind: request.kind,
      parent,
      labels,
      created: now,
      updated: now,
      owner,
      generation: 1,
    };
    const make = labels[CHECKPOINT_LABEL] === undefined ? makeLimited : makeFromCheckpoint;
    const extra = { ...sizeLimit(labels), ...(origin === undefined ? {} : viewOnly(pool, request.kind)) };
    const made = await make(pool, { snapshot, origin, extra }, call);
    if (mapped && !(await pool.mapsIds(made.rootfs))) {
      await destroyOrMark(pool, made.node);
      throw cannotMap(name);
    }
    return made;
  });
}

/**
 * Read-only for everybody who comes to it, by whatever path. One without a parent is empty, and gets its folder only yet. zfs-fuse
 * shows no extended attributes in a file system that it cannot write to: an image's capabilities would be missing there.
 */
function viewOnly({ zfs }: Pool, kind: PrepareRequest['kind']): Properties {
  return kind === 'view' && zfs.kind === 'openzfs' ? { readonly: 'on' } : {};
}

/** The annotations of an image's layers come as labels too, and no image may name a checkpoint: its disk is not the image's to read. */
function trusted({ name, labels }: PrepareRequest): Labels {
  if (!isExtraction(name, labels)) return labels;
  return Object.fromEntries(Object.entries(labels).filter(([label]) => label !== CHECKPOINT_LABEL));
}

/** A checkpoint's disk shows its files to the users for whom its container was made, and may grow as large. */
function inherited(pool: Pool, origin: string | undefined, labels: Labels): Labels {
  if (origin === undefined || labels[CHECKPOINT_LABEL] === undefined) return {};
  const source = pool.index.get(origin.slice(0, origin.indexOf('@')))?.snapshot;
  return source === undefined ? {} : { ...mappingLabels(source.labels), ...sizeLabels(source.labels) };
}

function originFor(pool: Pool, { owner, parent, labels }: PrepareRequest): string | undefined {
  const node = parent === '' ? undefined : pool.index.current(owner, parent);
  if (parent !== '') {
    if (node?.snapshot === undefined)
      throw new NotFound(`parent snapshot ${parent} does not exist`, { subject: parent });
    if (node.snapshot.kind !== 'committed') {
      throw new InvalidArgument(`parent snapshot ${parent} is ${node.snapshot.kind}, not committed`, {
        subject: parent,
      });
    }
  }
  const checkpoint = labels[CHECKPOINT_LABEL];
  if (checkpoint === undefined) return node === undefined ? undefined : pool.index.layerOf(node);
  const disk = pool.index.checkpoint(checkpoint);
  if (disk === undefined)
    throw new NotFound(`the disk of the checkpoint is gone: no ZFS snapshot is of checkpoint ${checkpoint}`, {
      subject: checkpoint,
    });
  return disk;
}

/**
 * The remote snapshot protocol: a layer that is in the pool already is not fetched again. containerd takes
 * AlreadyExists for that, and looks for a snapshot with this label and parent; core/metadata/snapshot.go. The label
 * is the layer's chain id, which stands for its content and that of all below it: so one that was removed or adopted
 * serves as well, through a clone of its own that is committed under the key. One that is in use elsewhere, on
 * a parent that was unpacked for another namespace, does where the request spells the chain id out by digests: a label alone may
 * be any name.
 * @throws AlreadyExists where the layer is there now
 */
async function reuseLayer(pool: Pool, request: PrepareRequest, call: CallOptions | undefined): Promise<void> {
  const { owner, kind, name, parent, labels } = request;
  const target = labels[REF_LABEL];
  if (target === undefined || kind === 'view') return;
  const here = (as: string): AlreadyExists =>
    new AlreadyExists(`layer ${target} is in the pool already, as ${as}`, { subject: target });
  for (const { snapshot } of pool.index.list(owner)) {
    if (
      snapshot.kind === 'committed' &&
      snapshot.parent === parent &&
      snapshot.labels[REF_LABEL] === target
    ) {
      throw here(snapshot.name);
    }
  }
  const spelled = spelledChain(labels) === target;
  const origin = [...pool.index.nodes()].find(
    ({ snapshot, state, inTrash, received }) =>
      !received &&
      (state === 'adopted' || state === 'removed' || (state === 'live' && !inTrash && spelled)) &&
      snapshot?.owner === owner &&
      isLayerOf(snapshot, target),
  );
  if (origin === undefined) return;
  const now = pool.now();
  const made = { name, parent, labels: filled(labels), created: now, updated: now, owner, generation: 1 };
  let node: Node;
  try {
    const from = pool.index.layerOf(origin);
    ({ node } = await makeDataset(
      pool,
      { snapshot: { ...made, kind: 'active' }, origin: from, extra: {} },
      call,
    ));
  } catch (error) {
    if (error instanceof NotFound) return; // a sweep took it meanwhile: the layer is fetched
    throw error;
  }
  await commitNode(pool, node, { ...made, kind: 'committed', dataset: node.dataset }, call);
  throw here(name);
}
