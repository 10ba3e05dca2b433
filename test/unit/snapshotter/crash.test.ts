import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { ZfsKind } from '../../../src/zfs/zfs.ts';
import type { SnapshotStore } from '../../../snapshotter/store.ts';
import { dying, harness, Killed, type Harness } from './harness.ts';

const LAYER = 'default/2/layer';
const WEB = 'default/3/web';

/** Every method, on a pool with a layer, a container with one checkpoint, a view and an extraction. */
const methods: Record<string, (store: SnapshotStore, dataset: string) => Promise<unknown>> = {
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
  sweep: (store) => store.sweep(),
};

async function prepared(h: Harness): Promise<string> {
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
  h.clock.seconds += 1000;
  const dataset = store.findContainer('default', 'web')?.dataset ?? '';
  await h.zfs.snapshot([`${dataset}@one`], { properties: { 'stasis:checkpoint': 'id-one' } });
  store.noteCheckpoint(dataset, 'one', 'id-one');
  return dataset;
}

/** What a store shows of itself: all that must be the same after a restart. */
function state(store: SnapshotStore): unknown {
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
const visible = (store: SnapshotStore): string =>
  JSON.stringify(
    [...store.list([])]
      .map(({ name, kind, parent, labels, generation }) => [name, kind, parent, labels, generation])
      .sort(),
  );

// The kinds differ in how a container is taken out of use, and in nothing else here.
const differing = new Set(['remove of a container', 'rewind', 'sweep']);
const cases = (['openzfs', 'zfs-fuse'] as const).flatMap((kind) =>
  Object.entries(methods).flatMap(([name, run]) =>
    kind === 'openzfs' || differing.has(name) ? [{ kind, name, run }] : [],
  ),
);
for (const { kind, name, run } of cases) {
  test(`${kind}: killed at any step of ${name}, a restart finds all of it or none`, async (t) => {
    const whole = await harness(t, {}, kind);
    const from = await prepared(whole);
    const before = visible(whole.store);
    await run(whole.store, from);
    const after = visible(whole.store);
    const middle = new Set([before, after]);
    assert.deepEqual(
      state(await whole.restart()),
      state(whole.store),
      'index and pool agree without a crash',
    );

    for (let nth = 0; ; nth++) {
      let died = false;
      for (const when of ['before', 'after'] as const) {
        const h = await harness(t, {}, kind);
        const dataset = await prepared(h);
        const doomed = await h.restart({ zfs: dying(h.zfs, nth + (await loadCommands(h)), when) });
        await run(doomed, dataset).catch((error: unknown) => {
          assert.ok(error instanceof Killed, String(error));
          died = true;
        });
        const store = await h.restart();
        if (name === 'rewind, undone' || name === 'remove after a rewind')
          middle.add(await rewoundOnly(t, kind));
        assert.ok(
          middle.has(visible(store)),
          `killed ${when} command ${nth}: neither the old nor the new state`,
        );
        await store.sweep();
        assert.deepEqual(
          state(await h.restart()),
          state(store),
          `killed ${when} command ${nth}: index and pool differ`,
        );
        assert.ok(h.zfs.datasets.has(`${dataset}@one`), 'a checkpoint is never lost');
      }
      if (!died) break;
    }
  });
}

/** Loading a store that exists runs this many commands: the listing, and another for long label sets. */
async function loadCommands(h: Harness): Promise<number> {
  h.commands();
  await h.restart();
  return h.commands().length;
}

async function rewoundOnly(t: TestContext, kind: ZfsKind): Promise<string> {
  const h = await harness(t, {}, kind);
  const dataset = await prepared(h);
  await h.store.rewind(WEB, `${dataset}@one`);
  return visible(h.store);
}
