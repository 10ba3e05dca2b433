import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Code, codeOf } from '../../../src/errors.ts';
import type { SnapshotStore } from '../../../snapshotter/store.ts';
import { harness, OWNER, ROOT, type Harness } from './harness.ts';

const LAYER = 'default/2/layer';

async function withContainer(h: Harness): Promise<string> {
  await h.store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
  await h.store.commit({ name: LAYER, key: 'default/1/extract-1', labels: {}, parent: '' });
  await h.store.prepare({ name: 'default/3/web', kind: 'active', parent: LAYER, labels: {} });
  return h.store.findContainer('default', 'web')?.dataset ?? '';
}

/** What the checkpoint engine does to the pool and tells the store. */
async function checkpoint(h: Harness, dataset: string, name: string, store = h.store): Promise<string> {
  await h.zfs.snapshot([`${dataset}@${name}`], { properties: { 'stasis:checkpoint': `id-${name}` } });
  store.noteCheckpoint(dataset, name, `id-${name}`);
  return `${dataset}@${name}`;
}

const names = (store: SnapshotStore): string[] => [...store.list([])].map(({ name }) => name).sort();
const below = (h: Harness, folder: string): string[] =>
  [...h.zfs.datasets.keys()].filter((name) => name.startsWith(`${ROOT}/${folder}/`));

for (const kind of ['openzfs', 'zfs-fuse'] as const) {
  test(`${kind}: a removed container waits in the trash for its grace time, then goes, and the layer under it then too`, async (t) => {
    const h = await harness(t, {}, kind);
    await withContainer(h);
    h.commands();
    await h.store.remove('default/3/web');
    assert.equal(h.commands().length, 1);
    await h.store.remove(LAYER);
    assert.deepEqual(names(h.store), []);
    await h.store.sweep();
    assert.equal(below(h, 'trash').length, 1);
    assert.equal(
      below(h, 'layers').length,
      2,
      'the layer and its snapshot stay while the trash stands on them',
    );
    h.clock.seconds += 101;
    assert.equal((await (await h.restart()).sweep()).failed.length, 0);
    assert.deepEqual([...below(h, 'trash'), ...below(h, 'layers')], []);
  });
}

test('the trash is emptied without grace when the pool is nearly full', async (t) => {
  const h = await harness(t);
  await withContainer(h);
  await h.store.remove('default/3/web');
  h.zfs.freeBytes = 1e6;
  await h.store.sweep();
  assert.deepEqual(below(h, 'trash'), []);
});

test('hundreds of container lives leave as many datasets as there were', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  await withContainer(h);
  const before = h.zfs.datasets.size;
  for (let life = 0; life < 300; life++) {
    await h.store.prepare({ name: `default/${10 + life}/job`, kind: 'active', parent: LAYER, labels: {} });
    await h.store.remove(`default/${10 + life}/job`);
    if (life % 50 === 49) await h.store.sweep();
  }
  assert.equal(h.zfs.datasets.size, before);
  assert.equal(
    h.store.datasets().length,
    before - 2,
    'the index has the same file systems (pool and layer snapshot apart)',
  );
});

test('a checkpoint outlives its container: Remove frees the key, keeps the dataset, and sweeps leave it', async (t) => {
  const h = await harness(t);
  const dataset = await withContainer(h);
  await checkpoint(h, dataset, 'one');
  await h.store.remove('default/3/web');
  assert.deepEqual(names(h.store), [LAYER]);
  h.clock.seconds += 1000;
  const store = await h.restart();
  await store.sweep();
  assert.ok(h.zfs.datasets.has(`${dataset}@one`));
  assert.deepEqual(names(store), [LAYER]);

  const labels = { 'containerd.io/snapshot/stasis.checkpoint': 'id-one' };
  await store.prepare({ name: 'default/9/web', kind: 'active', parent: LAYER, labels });
  assert.equal(store.findContainer('default', 'web')?.origin, `${dataset}@one`);
  assert.equal(store.stat('default/9/web').parent, LAYER);
});

test('when the last checkpoint of a removed container goes, its dataset is said to be free and the sweep takes it', async (t) => {
  const released: string[] = [];
  const h = await harness(t, { onReleased: (dataset) => released.push(dataset) });
  const dataset = await withContainer(h);
  await checkpoint(h, dataset, 'one');
  await checkpoint(h, dataset, 'two');
  await h.store.remove('default/3/web');
  h.clock.seconds += 1000;
  for (const name of ['one', 'two']) {
    await h.zfs.destroy(`${dataset}@${name}`);
    await h.store.forgetCheckpoint(dataset, name);
    await h.store.sweep();
  }
  assert.deepEqual(released, [dataset]);
  assert.ok(!h.zfs.datasets.has(dataset));
});

test('a container whose clones live can be removed, and goes when its last checkpoint does: a clone takes its place', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  const dataset = await withContainer(h);
  await checkpoint(h, dataset, 'one');
  const labels = { 'containerd.io/snapshot/stasis.checkpoint': 'id-one' };
  await h.store.prepare({ name: 'default/4/clone', kind: 'active', parent: LAYER, labels });
  await h.store.prepare({ name: 'default/5/other', kind: 'active', parent: LAYER, labels });
  await h.store.remove('default/3/web');
  await h.store.sweep();
  assert.ok(h.zfs.datasets.has(`${dataset}@one`), 'the checkpoint is on it');
  await h.zfs.destroy(`${dataset}@one`, { defer: true });
  await h.store.forgetCheckpoint(dataset, 'one');
  await h.store.sweep();
  assert.ok(!h.zfs.datasets.has(dataset));
  const store = await h.restart();
  const clone = store.findContainer('default', 'clone')?.dataset ?? '';
  assert.equal(store.findContainer('default', 'other')?.origin, `${clone}@one`, 'the other one stands on it');
  await store.remove('default/4/clone');
  await store.sweep();
  assert.ok(!h.zfs.datasets.has(clone));
  await store.remove('default/5/other');
  await store.sweep();
  assert.deepEqual(below(h, 'containers'), [`${ROOT}/containers/default`]);
});

test('an unknown checkpoint is not found, and nothing is made', async (t) => {
  const h = await harness(t);
  await withContainer(h);
  const before = h.zfs.datasets.size;
  const labels = { 'containerd.io/snapshot/stasis.checkpoint': 'nope' };
  await assert.rejects(
    h.store.prepare({ name: 'default/4/x', kind: 'active', parent: LAYER, labels }),
    (error) => codeOf(error) === Code.NotFound,
  );
  assert.equal(h.zfs.datasets.size, before);
});

test("a rewind points the key at the checkpoint's files, back and then forward again", async (t) => {
  const h = await harness(t);
  const dataset = await withContainer(h);
  const file = async (store: SnapshotStore): Promise<string> =>
    readFile(`${(await store.mounts('default/3/web'))[0]?.source ?? ''}/n`, 'utf8');
  const put = async (text: string): Promise<void> =>
    writeFile(`${(await h.store.mounts('default/3/web'))[0]?.source ?? ''}/n`, text);
  await put('1');
  const one = await checkpoint(h, dataset, 'one');
  await put('2');
  const two = await checkpoint(h, dataset, 'two');
  await put('3');
  h.commands();
  const back = await h.store.rewind('default/3/web', one);
  assert.deepEqual(h.commands(), ['clone'], 'the clone alone is the commit');
  assert.equal(await file(h.store), '1');
  assert.equal(
    await file(await h.restart()),
    '1',
    'a crash before the end of the rewind leaves the new disk',
  );
  await back.done();
  const forward = await h.store.rewind('default/3/web', two);
  await forward.done();
  assert.equal(await file(h.store), '2');
  const store = await h.restart();
  assert.equal(await file(store), '2');
  assert.deepEqual(names(store), [LAYER, 'default/3/web'], 'older generations are not listed');
  assert.deepEqual([store.findContainer('default', 'web')?.generation, back.previous], [3, dataset]);
});

test('a layer or a view cannot be rewound', async (t) => {
  const h = await harness(t);
  const dataset = await withContainer(h);
  const one = await checkpoint(h, dataset, 'one');
  await h.store.prepare({ name: 'default/4/view', kind: 'view', parent: LAYER, labels: {} });
  for (const name of [LAYER, 'default/4/view'])
    await assert.rejects(h.store.rewind(name, one), (error) => codeOf(error) === Code.FailedPrecondition);
});

test('a rewind that is undone leaves the former disk, and nothing else', async (t) => {
  const h = await harness(t);
  const dataset = await withContainer(h);
  const one = await checkpoint(h, dataset, 'one');
  const before = [...h.zfs.datasets.keys()].sort();
  const rewound = await h.store.rewind('default/3/web', one);
  await rewound.undo();
  await rewound.undo();
  assert.deepEqual([...h.zfs.datasets.keys()].sort(), before);
  assert.equal(h.store.findContainer('default', 'web')?.dataset, dataset);
  assert.equal(h.store.findContainer('default', 'web')?.generation, 1);
});

test('a sweep in the middle of a rewind leaves the former disk to go back to, until the rewind is done', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  const dataset = await withContainer(h);
  const one = await checkpoint(h, dataset, 'one');
  const first = await h.store.rewind('default/3/web', one);
  await h.store.sweep();
  await first.undo();
  assert.equal(h.store.findContainer('default', 'web')?.dataset, dataset);
  const second = await h.store.rewind('default/3/web', one);
  const third = await h.store.rewind('default/3/web', one);
  await second.done(); // comes late, while the next is under way
  await h.store.sweep();
  await third.undo();
  assert.equal(h.store.findContainer('default', 'web')?.dataset, second.dataset);
  const restarted = await h.restart();
  assert.equal(restarted.findContainer('default', 'web')?.dataset, second.dataset);
});

test('removing a rewound container removes every generation, and none comes back after a restart', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  const dataset = await withContainer(h);
  const one = await checkpoint(h, dataset, 'one');
  await h.store.rewind('default/3/web', one); // cut off: neither done nor undone
  await h.store.remove('default/3/web');
  const store = await h.restart();
  assert.deepEqual(names(store), [LAYER]);
  await store.sweep();
  assert.ok(h.zfs.datasets.has(one), 'the checkpoint is still there');
  assert.equal(below(h, 'trash').length, 0);
});

test("a second containerd sees nothing of the first one's, and cannot remove it", async (t) => {
  const h = await harness(t);
  const dataset = await withContainer(h);
  const other = await h.restart({ owner: 'another' });
  assert.deepEqual(names(other), []);
  await assert.rejects(other.remove('default/3/web'), (error) => codeOf(error) === Code.NotFound);
  await other.sweep();
  assert.ok(h.zfs.datasets.has(dataset));
  assert.deepEqual(
    other.strangers
      .foreign()
      .map((node) => node.dataset)
      .sort(),
    [dataset, `${ROOT}/layers/extract-1`],
  );
  await other.prepare({ name: 'default/3/web', kind: 'active', parent: '', labels: {} });
  assert.deepEqual(names(await h.restart()), [LAYER, 'default/3/web']);
});

test("another containerd's trash is not swept", async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  await withContainer(h);
  await h.store.remove('default/3/web');
  await (await h.restart({ owner: 'another' })).sweep();
  assert.equal(below(h, 'trash').length, 1);
});

test('adoption is previewed, takes over without listing, and brings layers back when their image is unpacked', async (t) => {
  const h = await harness(t);
  const ref = { 'containerd.io/snapshot.ref': 'sha256:chain' };
  await h.store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: ref });
  await h.store.commit({ name: 'default/2/layer', key: 'default/1/extract-1', labels: ref, parent: '' });
  const other = await h.restart({ owner: 'another' });
  const preview = await other.strangers.adopt([], { dryRun: true });
  assert.equal(preview.adopted.length, 1);
  assert.equal(other.strangers.foreign().length, 1, 'a preview changes nothing');
  await other.strangers.adopt([], { dryRun: false });
  const store = await h.restart({ owner: 'another' });
  assert.deepEqual([store.strangers.foreign().length, names(store).length], [0, 0]);
  await store.sweep();
  const again = { name: 'default/7/extract-2', kind: 'active', parent: '', labels: ref } as const;
  await assert.rejects(store.prepare(again), (error) => codeOf(error) === Code.AlreadyExists);
  assert.deepEqual(
    [...store.list(['labels."containerd.io/snapshot.ref"=="sha256:chain"'])].map(({ kind }) => kind),
    ['committed'],
  );
  await assert.rejects(
    store.strangers.adopt(['tank/other'], { dryRun: false }),
    (error) => codeOf(error) === Code.NotFound,
  );
});

test('a dataset that is busy frees its key at once, is reported, and goes when it no longer is', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  const dataset = await withContainer(h);
  h.zfs.busy.add(dataset);
  await h.store.remove('default/3/web');
  await h.store.prepare({ name: 'default/3/web', kind: 'active', parent: LAYER, labels: {} });
  const first = await h.store.sweep();
  assert.deepEqual(
    first.failed.map((each) => each.dataset),
    [dataset],
  );
  h.zfs.busy.clear();
  assert.deepEqual((await h.store.sweep()).destroyed, [dataset]);
  assert.equal((await h.restart()).stat('default/3/web').owner, OWNER);
});
