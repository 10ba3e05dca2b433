// stasisd's part for stock clients: they keep a checkpoint's memory in a folder of their own and throw its disk away, so the
// disk half is a ZFS snapshot that the shim makes, and that is brought back when the folder comes back.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Node } from '../../snapshotter/index.ts';
import { isLive } from '../../snapshotter/index.ts';
import { splitName } from '../../snapshotter/snapshot.ts';
import type { Rewound } from '../../snapshotter/rewind.ts';
import type { Handlers } from '../../ttrpc/index.ts';
import { FailedPrecondition, InvalidArgument, messageOf, NotFound } from '../errors.ts';
import type { DisksDefinition, RewindStep } from '../proto/gen/stasis/internal.ts';
import { Busy } from '../zfs/errors.ts';
import { type CheckpointEntry, entryFromRows, properties } from './entry.ts';
import { type Host, lockKey } from './host.ts';
import { removeOne, type RemovalHost } from './remove.ts';
import { UnreadMemory } from './unread-memory.ts';

/** What the disks need of a host. */
export type DisksHost = RemovalHost & Pick<Host, 'containerd' | 'locks' | 'log' | 'later'>;

/** How long, and how often, an undo waits for the mounts of a shim that died to go. */
const UNDO_TRIES = 20;
const UNDO_PAUSE_MS = 500;

/** The handlers of `stasis.internal.v1.Disks`. */
export function disksService(host: DisksHost): Handlers<DisksDefinition> {
  const memories = new UnreadMemory((id) =>
    host.later('remove a checkpoint of no use', removeLost(host, id)),
  );
  return {
    async note({ snapshot, folder }) {
      const { id } = await learn(host, snapshot);
      if (folder !== '') await follow(host, memories, id, folder);
      return {};
    },

    async *rewind(steps) {
      const messages = steps[Symbol.asyncIterator]();
      const first = await messages.next();
      if (first.done === true) throw new InvalidArgument('the first message is missing');
      const { namespace, container } = first.value;
      const rewound = await host.locks.run(lockKey(namespace, container), () => bringBack(host, first.value));
      let keep = false;
      try {
        yield { source: rewound?.rootfs ?? '' };
        const second = await messages.next();
        keep = second.done !== true && second.value.keep;
      } finally {
        if (rewound !== undefined) await settle(host, rewound, keep);
      }
    },
  };
}

/**
 * Points the container's snapshot key at a new clone of the checkpoint's disk.
 * @returns undefined where the checkpoint's disk is not in this pool and the present one was made after it: then the client
 *   has filled it itself, as `ctr containers restore` does
 * @throws NotFound for a disk that is none of ours; FailedPrecondition where the checkpoint's disk is gone and the present
 *   one has gone on, so that memory and disk could not agree
 */
async function bringBack(host: DisksHost, step: RewindStep): Promise<Rewound | undefined> {
  const { namespace, container, source, snapshot, checkpoint, createdNs } = step;
  const disk = host.store.datasets().find((node) => isDisk(host, node, namespace, source));
  if (disk?.snapshot === undefined) {
    throw new NotFound(`${source} is no container's disk in namespace ${namespace}`, { subject: source });
  }
  const entry = await learn(host, snapshot).catch((error: unknown) => {
    if (error instanceof NotFound) return undefined;
    throw error;
  });
  const isIt = entry?.id === checkpoint && entry.namespace === namespace && entry.container === container;
  if (isIt) return host.store.rewind(disk.snapshot.name, entry.snapshot, {}, disk.snapshot.owner);
  const { seconds, nanos } = disk.snapshot.created;
  if (seconds * 1_000_000_000n + BigInt(nanos) > createdNs) return undefined;
  throw new FailedPrecondition(
    `the disk half ${snapshot} of this checkpoint of ${container} is gone, and the disk has gone on since`,
    {
      subject: container,
      reason: 'disk-not-found',
      remedy: `start ${container} without the checkpoint, or remove stasis.json from its image folder to restore the memory over the present disk`,
    },
  );
}

function isDisk(host: DisksHost, node: Node, namespace: string, source: string): boolean {
  if (!isLive(node) || node.snapshot?.kind !== 'active') return false;
  // A cheap look first, as there may be thousands: the mount point ends with the dataset's last part.
  if (!source.includes(node.dataset.slice(node.dataset.lastIndexOf('/') + 1))) return false;
  const split = splitName(node.snapshot.name);
  if (split.namespace !== namespace) return false;
  const disk = host.store.findContainer(namespace, split.key, node.snapshot.owner);
  return disk?.dataset === node.dataset && disk.rootfs === source;
}

/**
 * Takes a stock checkpoint's disk half into the catalog and the index.
 * @throws NotFound where there is no such snapshot, or it is no such half
 */
async function learn(host: DisksHost, snapshot: string): Promise<CheckpointEntry> {
  const rows = await host.zfs.list({
    root: snapshot,
    depth: 0,
    types: ['snapshot'],
    properties: Object.values(properties),
    ownOnly: true,
  });
  const [entry] = entryFromRows(rows).entries;
  if (entry === undefined || entry.snapshot !== snapshot) {
    throw new NotFound(`${snapshot} is no disk half of a checkpoint`, { subject: snapshot });
  }
  if (host.catalog.byId(entry.id) === undefined) {
    host.catalog.add(entry);
    const [dataset = '', name = ''] = snapshot.split('@');
    host.store.noteCheckpoint(dataset, name, entry.id);
  }
  return entry;
}

/** Follows a checkpoint's memory. Where that cannot be, the checkpoint stays until somebody removes it. */
async function follow(host: DisksHost, memories: UnreadMemory, id: string, folder: string): Promise<void> {
  try {
    const [store] = await host.containerd.plugins(['type==io.containerd.content.v1,id==content']);
    const root = store?.exports['root'];
    if (root !== undefined) memories.follow(id, folder, join(root, 'blobs/sha256'));
  } catch (error) {
    host.log.warn('what becomes of the memory of a checkpoint cannot be followed', {
      checkpoint: id,
      error: messageOf(error),
    });
  }
}

/** Removes a checkpoint whose memory nobody has, unless its disk is of use to somebody all the same. */
async function removeLost(host: DisksHost, id: string): Promise<void> {
  const entry = host.catalog.byId(id);
  if (entry === undefined) return;
  await host.locks.run(lockKey(entry.namespace, entry.container), async () => {
    if (host.catalog.byId(id) !== entry || host.catalog.isBeingRead(entry)) return;
    if (host.store.clonesOf(entry.snapshot).length > 0) return;
    const { snapshot } = entry;
    host.log.info("removing a stock client's checkpoint: its memory was never read, and is gone", {
      snapshot,
    });
    await removeOne(host, entry);
  });
}

/** Keeps the disk that was brought back, or goes back to the one before; a failure is logged, as nobody waits for it. */
async function settle(host: DisksHost, rewound: Rewound, keep: boolean): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await (keep ? rewound.done() : rewound.undo());
      return;
    } catch (error) {
      const again = error instanceof Busy && attempt < UNDO_TRIES;
      if (!again) {
        host.log.error('a disk that was brought back could not be settled', {
          dataset: rewound.dataset,
          keep,
          error: messageOf(error),
        });
        return;
      }
      await sleep(UNDO_PAUSE_MS);
    }
  }
}
