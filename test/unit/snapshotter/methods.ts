import { Code, codeOf } from '../../../src/errors.ts';
import type { SnapshotStore } from '../../../snapshotter/store.ts';
import { ROOT, type Harness } from './harness.ts';

export const LAYER = 'default/2/layer';
/** The layer that is unpacked again after it was removed. */
export const REUSED = 'default/9/extract-9 sha256:gone';
export const GONE = { 'containerd.io/snapshot.ref': 'sha256:gone' };
export const WEB = 'default/3/web';

/** Every method, on a pool with layers, a container with one checkpoint, a view and an extraction; see `prepared`. */
export const methods: Record<string, (store: SnapshotStore, dataset: string) => Promise<unknown>> = {
  prepare: (store) =>
    store.prepare({ name: 'other/9/new', kind: 'active', parent: LAYER, labels: { a: 'b' } }),
  'prepare without parent': (store) =>
    store.prepare({ name: 'other/9/new', kind: 'active', parent: '', labels: {} }),
  'prepare from a checkpoint': (store) =>
    store.prepare({
      name: 'default/9/new',
      kind: 'active',
      parent: LAYER,
      labels: { 'containerd.io/snapshot/stasis.checkpoint': 'id-one' },
    }),
  view: (store) => store.prepare({ name: 'default/9/new', kind: 'view', parent: LAYER, labels: {} }),
  commit: (store) =>
    store.commit({ name: 'default/9/new', key: 'default/5/extract-2', labels: { a: 'b' }, parent: '' }),
  update: (store) => store.update({ name: WEB, labels: { a: 'b'.repeat(3000) }, paths: undefined }),
  'update of a long set': (store) =>
    store.update({ name: LAYER, labels: { a: 'c'.repeat(3000) }, paths: undefined }),
  'remove of a container with checkpoints': (store) => store.remove(WEB),
  'remove of a container': (store) => store.remove('default/6/job'),
  'remove of a view': (store) => store.remove('default/4/view'),
  'remove of an extraction': (store) => store.remove('default/5/extract-2'),
  rewind: async (store, dataset) => (await store.rewind(WEB, `${dataset}@one`)).done(),
  'rewind, undone': async (store, dataset) => (await store.rewind(WEB, `${dataset}@one`)).undo(),
  'remove after a rewind': async (store, dataset) => {
    await store.rewind(WEB, `${dataset}@one`);
    await store.remove(WEB);
  },
  'prepare of a layer that was removed': (store) =>
    store.prepare({ name: REUSED, kind: 'active', parent: LAYER, labels: GONE }).catch((error: unknown) => {
      // The answer that says: the layer is here.
      if (codeOf(error) !== Code.AlreadyExists) throw error;
    }),
  adopt: (store) => store.strangers.adopt([], { dryRun: false }),
  'a diff': (store) =>
    store
      .comparing({ left: LAYER, right: WEB }, async () => undefined)
      .catch((error: unknown) => {
        if (codeOf(error) !== Code.Unimplemented) throw error; // what ZFS in memory answers in the end
      }),
  'usage of a layer': (store) => store.usage(LAYER),
  sweep: (store) => store.sweep(),
};

/** To be opened again afterwards: another containerd was here. @returns the dataset of the container with the checkpoint */
export async function prepared(h: Harness): Promise<string> {
  const { store } = h;
  const make = (name: string, kind: 'active' | 'view', parent: string): Promise<unknown> =>
    store.prepare({ name, kind, parent, labels: {} });
  await make('default/1/extract-1', 'active', '');
  await store.commit({
    name: LAYER,
    key: 'default/1/extract-1',
    labels: { long: 'x'.repeat(3000) },
    parent: '',
  });
  await make(WEB, 'active', LAYER);
  await make('default/4/view', 'view', LAYER);
  await make('default/5/extract-2', 'active', LAYER);
  await make('default/6/job', 'active', LAYER);
  await make('default/7/old', 'active', LAYER);
  await store.remove('default/7/old');
  await make('default/8/extract-8', 'active', LAYER);
  const gone = { name: 'default/8/gone', key: 'default/8/extract-8', parent: '' };
  await store.commit({ ...gone, labels: GONE });
  await make('default/8/on-gone', 'active', gone.name); // keeps the layer in the pool when it is removed
  await store.remove('default/8/on-gone');
  await store.remove(gone.name);
  const other = await h.restart({ owner: 'another' });
  await other.prepare({ name: 'default/1/foreign', kind: 'active', parent: '', labels: {} });
  await h.zfs.create(`${ROOT}/reading`);
  await make('default/10/loop', 'active', LAYER);
  await rewindAndForget(h, 'loop', 'l');
  await rewindAndForget(h, 'loop', 'l.2');
  h.clock.seconds += 1000;
  const dataset = store.findContainer('default', 'web')?.dataset ?? '';
  await h.zfs.snapshot([`${dataset}@one`], { properties: { 'stasis:checkpoint': 'id-one' } });
  store.noteCheckpoint(dataset, 'one', 'id-one');
  return dataset;
}

/** What a store shows of itself: all that must be the same after a restart. */
export function state(store: SnapshotStore): unknown {
  return {
    snapshots: [...store.list([])].sort((a, b) => (a.name < b.name ? -1 : 1)),
    datasets: store
      .datasets()
      .map(({ dataset, origin, state, inTrash, snapshots }) => ({
        dataset,
        origin,
        state,
        inTrash,
        snapshots: [...snapshots.keys()],
      }))
      .sort((a, b) => (a.dataset < b.dataset ? -1 : 1)),
  };
}

/** Visible snapshots alone: a crash may leave the old ones or the new, and nothing between. */
export const visible = (store: SnapshotStore): string =>
  JSON.stringify(
    [...store.list([])]
      .map(({ name, kind, parent, labels, generation }) => [name, kind, parent, labels, generation])
      .sort(),
  );

/** A checkpoint, a rewind to it, and its removal: the former disk is kept by nothing but the present one. */
export async function rewindAndForget(h: Harness, key: string, checkpoint: string): Promise<string> {
  const { store, zfs } = h;
  const { dataset = '', name = '' } = store.findContainer('default', key) ?? {};
  await zfs.create(`${dataset}/memory`);
  await zfs.snapshot([`${dataset}@${checkpoint}`], { properties: { 'stasis:checkpoint': checkpoint } });
  store.noteCheckpoint(dataset, checkpoint, checkpoint);
  await (await store.rewind(name, `${dataset}@${checkpoint}`)).done();
  await zfs.destroy(`${dataset}@${checkpoint}`, { defer: true });
  await store.forgetCheckpoint(dataset, checkpoint);
  return dataset;
}
