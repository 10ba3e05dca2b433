import assert from 'node:assert/strict';
import { test } from 'node:test';
import { harness, stalling } from './harness.ts';
import { prepared, WEB } from './methods.ts';

const sound = { unsettled: [], unmarked: [], unreadable: [], undestroyed: [] };

test('the health of the index counts what there is, by whose it is and what for', async (t) => {
  const h = await harness(t);
  await prepared(h);
  const store = await h.restart();
  const { datasets, ...health } = store.health();
  assert.equal(datasets, store.datasets().length);
  // The layer, the container, its sibling, a view and an extraction; two containers in the trash and the layer below one.
  assert.deepEqual(health, { snapshots: 6, checkpoints: 1, removed: 3, foreign: 1, ...sound });
});

test('what a sweep could not destroy is told with its cause, until one could', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  await prepared(h);
  const store = await h.restart();
  const dataset = store.datasets().find(({ inTrash }) => inTrash)?.dataset ?? '';
  h.zfs.busy.add(dataset);
  await store.sweep();
  const { undestroyed } = store.health();
  assert.deepEqual(
    undestroyed.map((each) => each.dataset),
    [dataset],
  );
  assert.match(undestroyed[0]?.why ?? '', /cannot destroy/);
  h.zfs.busy.clear();
  await store.sweep();
  assert.deepEqual(store.health().undestroyed, []);
});

test('a command that gave no answer is told until the pool has said what became of it', async (t) => {
  const h = await harness(t);
  await prepared(h);
  const stalled = stalling(h.zfs, 1); // the first is the listing
  const store = await h.restart({ zfs: stalled.zfs });
  for (let at = 0; store.health().unsettled.length === 0 && at < 5; at++)
    await store.update({ name: WEB, labels: { at: String(at) }, paths: undefined }).catch(() => undefined);
  assert.deepEqual(store.health().unsettled, [store.findContainer('default', 'web')?.dataset]);
  await stalled.mend();
  await store.update({ name: WEB, labels: { at: 'last' }, paths: undefined });
  assert.deepEqual(store.health().unsettled, []);
});
