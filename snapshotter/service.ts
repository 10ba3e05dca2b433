import type { GrpcContext, GrpcHandlers } from '../src/api/grpc-server.ts';
import { FailedPrecondition, InvalidArgument } from '../src/errors.ts';
import { Kind, type Info, type SnapshotsDefinition } from '../src/proto/gen/containerd/snapshots.ts';
import type { Mount } from '../src/proto/gen/containerd/mount.ts';
import type { SnapshotKind, Snapshot } from './snapshot.ts';
import type { BindMount } from './bind-mount.ts';
import type { SnapshotStore } from './store.ts';

/** Snapshots in one message of List's stream: keeps each far below any message limit. */
const LIST_BATCH = 100;

const kinds: Readonly<Record<SnapshotKind, Kind>> = {
  view: Kind.VIEW,
  active: Kind.ACTIVE,
  committed: Kind.COMMITTED,
};

/** Who looks whether containerd's database is the one that the snapshots were made with. */
export interface DatabaseWatch {
  look(owner: string): Promise<void>;
  asked(owner: string, name: string): void;
}

/**
 * containerd's Snapshots service (containerd/snapshots.proto) over a store.
 * @param ownerOf the UUID of the containerd that calls; undefined: the store's own
 * @param database what is awaited before whatever a containerd with another database would begin with, and what is told of names that it asks for
 *   and that are not in use
 */
export function snapshotsService(
  store: SnapshotStore,
  ownerOf: (context: GrpcContext) => Promise<string | undefined> | string | undefined = () => undefined,
  database: DatabaseWatch = { look: async () => undefined, asked: () => undefined },
): GrpcHandlers<SnapshotsDefinition> {
  const ownerFor = async (context: GrpcContext): Promise<string> => {
    const owner = (await ownerOf(context)) ?? store.owner;
    if (owner !== '') {
      if (store.owner === '') store.owner = owner;
      store.serve(owner);
      return owner;
    }
    throw new FailedPrecondition(
      'which containerd this is cannot be told yet: its introspection service does not answer',
      {
        remedy: 'see containerd.address in the configuration, and stasis info',
      },
    );
  };
  const make = async (
    kind: 'active' | 'view',
    request: { key: string; parent: string; labels: Record<string, string> },
    context: GrpcContext,
  ): Promise<{ mounts: Mount[] }> => {
    const owner = await ownerFor(context);
    await database.look(owner);
    const { key: name, parent, labels } = request;
    return {
      mounts: toMounts(
        await store.prepare({ owner, name, kind, parent, labels }, { signal: context.signal }),
      ),
    };
  };
  return {
    prepare: (request, context) => make('active', request, context),
    view: (request, context) => make('view', request, context),
    mounts: async (request, context) => {
      const owner = await ownerFor(context);
      await database.look(owner);
      return { mounts: toMounts(await store.mounts(request.key, owner)) };
    },
    // Not cancelled with their call: a command that was killed may have had its effect, and what it did to a
    // snapshot that exists cannot be undone, as a Prepare can.
    commit: async ({ name, key, labels, parent }, context) => {
      await store.commit({ owner: await ownerFor(context), name, key, labels, parent });
      return {};
    },
    remove: async (request, context) => {
      const owner = await ownerFor(context);
      await database.look(owner);
      await store.remove(request.key, owner);
      return {};
    },
    stat: async (request, context) => {
      const owner = await ownerFor(context);
      if (store.lookup(request.key, owner) === undefined) database.asked(owner, request.key);
      return { info: toInfo(store.stat(request.key, owner)) };
    },
    update: async (request, context) => {
      const { info, updateMask: paths } = request;
      if (info === undefined) throw new InvalidArgument('update names no snapshot', { subject: 'info' });
      const owner = await ownerFor(context);
      return { info: toInfo(await store.update({ owner, name: info.name, labels: info.labels, paths })) };
    },
    list: async function* (request, context) {
      const owner = await ownerFor(context);
      await database.look(owner);
      let batch: Info[] = [];
      for (const snapshot of [...store.list(request.filters, owner)]) {
        batch.push(toInfo(snapshot));
        if (batch.length < LIST_BATCH) continue;
        yield { info: batch };
        batch = [];
      }
      if (batch.length > 0) yield { info: batch };
    },
    usage: async (request, context) => store.usage(request.key, await ownerFor(context)),
    cleanup: async (_request, context) => {
      await store.sweep({ signal: context.signal });
      return {};
    },
  };
}

function toMounts(mounts: readonly BindMount[]): Mount[] {
  return mounts.map(({ type, source, options }) => ({ type, source, target: '', options: [...options] }));
}

function toInfo(snapshot: Snapshot): Info {
  return {
    name: snapshot.name,
    parent: snapshot.parent,
    kind: kinds[snapshot.kind],
    createdAt: snapshot.created,
    updatedAt: snapshot.updated,
    labels: { ...snapshot.labels },
  };
}
