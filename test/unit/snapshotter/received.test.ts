import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Catalog } from '../../../src/checkpoint/catalog.ts';
import { diskProperties, memoryProperties, type CheckpointEntry } from '../../../src/checkpoint/entry.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { readPool } from '../../../snapshotter/load.ts';
import type { SnapshotStore } from '../../../snapshotter/store.ts';
import { harness, OWNER, ROOT, type Harness } from './harness.ts';

const WEB = `${ROOT}/containers/default/web`;
const COPY = `${ROOT}/containers/default/copy`;

const names = (store: SnapshotStore): string[] => [...store.list([])].map(({ name }) => name).sort();
const foreign = (store: SnapshotStore): string[] => store.strangers.foreign().map(({ dataset }) => dataset);
const isCode = (code: Code) => (error: unknown) => codeOf(error) === code;

/** A layer and a container on it with a whole checkpoint. */
async function withWeb(t: TestContext): Promise<Harness> {
  const h = await harness(t, { trashGrace: 0 });
  const { store, zfs } = h;
  await store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
  await store.commit({ name: 'default/2/layer', key: 'default/1/extract-1', labels: {}, parent: '' });
  await store.prepare({ name: 'default/3/web', kind: 'active', parent: 'default/2/layer', labels: {} });
  const entry: CheckpointEntry = {
    id: 'id-one',
    namespace: 'default',
    container: 'web',
    name: 'one',
    set: '',
    createdNs: 1n,
    memory: 'image',
    disk: 'snapshot',
    snapshot: `${WEB}@one`,
    memorySnapshot: `${WEB}/memory@one`,
    memoryBytes: 1,
    memoryError: '',
    image: '',
    runtime: '',
    timings: { frozenNs: 1, freezeNs: 1, dumpNs: 1, syncNs: 1, snapshotNs: 1, storeNs: 1, totalNs: 1 },
  };
  await zfs.create(`${WEB}/memory`);
  await zfs.snapshot([entry.snapshot], { properties: diskProperties(entry) });
  await zfs.snapshot([`${WEB}/memory@one`], { properties: memoryProperties(entry) });
  store.noteCheckpoint(WEB, 'one', entry.id);
  return h;
}

/** What a start would find, with what it destroys: which is not done here. */
async function wholeAfterKill(h: Harness): Promise<unknown[]> {
  const catalog = new Catalog({ destroyIdempotent: async (name) => assert.ok(!name.startsWith(COPY), name) });
  await catalog.load(await readPool(h.zfs, ROOT));
  return [...catalog.all()].map(({ snapshot, memorySnapshot }) => [snapshot, memorySnapshot]);
}

async function catalogOf(h: Harness): Promise<Catalog> {
  const catalog = new Catalog(h.zfs);
  await catalog.load(await readPool(h.zfs, ROOT));
  return catalog;
}

test("a copy that comes back neither takes its source's place nor its checkpoints, at a start or meanwhile", async (t) => {
  const h = await withWeb(t);
  await h.zfs.receive(WEB, COPY);
  await h.store.strangers.notice(await readPool(h.zfs, ROOT));
  const labels = { 'containerd.io/snapshot/stasis.checkpoint': 'id-one' };
  const clone = { name: 'default/8/clone', kind: 'active', parent: 'default/2/layer', labels } as const;
  for (const open of [async () => h.store, () => h.restart()]) {
    const store = await open();
    assert.deepEqual(names(store), ['default/2/layer', 'default/3/web']);
    assert.equal(store.findContainer('default', 'web')?.dataset, WEB);
    assert.deepEqual(foreign(store), [COPY]);
    assert.deepEqual((await store.sweep()).failed, []);
    await store.prepare(clone);
    assert.equal(store.findContainer('default', 'clone')?.origin, `${WEB}@one`);
    await store.remove(clone.name);
    await store.sweep();
    assert.ok(h.zfs.datasets.has(COPY));
  }
  const catalog = await catalogOf(h);
  assert.deepEqual(
    [...catalog.all()].map(({ snapshot, memorySnapshot }) => [snapshot, memorySnapshot]),
    [[`${WEB}@one`, `${WEB}/memory@one`]],
  );
});

test('what comes while a store runs is seen, adopted and never listed, and its checkpoints are there', async (t) => {
  const h = await withWeb(t);
  const other = await h.restart({ owner: 'another' });
  await other.prepare({ name: 'default/4/mine', kind: 'active', parent: '', labels: {} });
  const catalog = await catalogOf(h);
  catalog.delete([...catalog.all()][0] as CheckpointEntry);
  await h.zfs.receive(WEB, COPY);
  await h.zfs.destroy(WEB, { recursive: true });
  const listing = await readPool(h.zfs, ROOT);
  await other.strangers.notice(listing);
  catalog.notice(listing);
  assert.deepEqual(
    [...catalog.all()].map(({ snapshot }) => snapshot),
    [`${COPY}@one`],
  );
  assert.equal(catalog.resolve('default', 'web', 'one').memorySnapshot, `${COPY}/memory@one`);
  const { adopted, skipped } = await other.strangers.adopt([COPY], { dryRun: false });
  assert.deepEqual([adopted.map(({ dataset }) => dataset), skipped], [[COPY], []]);
  for (const store of [other, await h.restart({ owner: 'another' })]) {
    assert.deepEqual(names(store), ['default/4/mine']);
    assert.ok(!foreign(store).includes(COPY));
    assert.deepEqual((await store.sweep()).destroyed, []);
    assert.equal((await store.strangers.adopt([COPY], { dryRun: false })).skipped.length, 1, 'ours already');
  }
  // A further snapshot, by an incremental stream.
  await h.zfs.snapshot([`${COPY}@two`], { properties: { 'stasis:checkpoint': 'id-two' } });
  await other.strangers.notice(await readPool(h.zfs, ROOT));
  await other.prepare({
    name: 'default/9/new',
    kind: 'active',
    parent: '',
    labels: { 'containerd.io/snapshot/stasis.checkpoint': 'id-two' },
  });
});

test('a copy stands in for a checkpoint once that is removed, whole, and is removed for itself', async (t) => {
  for (const seen of ['meanwhile', 'at a start']) {
    const h = await withWeb(t);
    let catalog = await catalogOf(h);
    let { store } = h;
    await h.zfs.receive(WEB, COPY);
    if (seen === 'meanwhile') {
      const listing = await readPool(h.zfs, ROOT);
      await store.strangers.notice(listing);
      for (let time = 0; time < 2; time++) catalog.notice(listing);
      await store.strangers.adopt([COPY], { dryRun: false });
    } else {
      [store, catalog] = [await h.restart(), await catalogOf(h)];
    }
    const halves = (): unknown[] =>
      [...catalog.all()].map(({ snapshot, memorySnapshot }) => [snapshot, memorySnapshot]);
    assert.deepEqual(halves(), [[`${WEB}@one`, `${WEB}/memory@one`]]);
    // As `stasis rm` does it, where a clone stands on the disk.
    const clone = { name: 'default/8/clone', kind: 'active', parent: 'default/2/layer' } as const;
    const labels = { 'containerd.io/snapshot/stasis.checkpoint': 'id-one' };
    await store.prepare({ ...clone, labels });
    const entry = catalog.resolve('default', 'web', 'one');
    await h.zfs.destroy(`${WEB}/memory@one`);
    if (seen === 'meanwhile')
      assert.deepEqual(await wholeAfterKill(h), [[`${COPY}@one`, `${COPY}/memory@one`]]);
    catalog.delete(entry);
    await h.zfs.destroyIdempotent(`${WEB}@one`, { defer: true });
    await store.forgetCheckpoint(WEB, 'one');
    assert.deepEqual(halves(), [[`${COPY}@one`, `${COPY}/memory@one`]]);
    assert.deepEqual(await wholeAfterKill(h), halves());
    assert.equal(catalog.resolve('default', 'web', 'one').snapshot, `${COPY}@one`);
    await store.prepare({ ...clone, name: 'default/9/again', labels });
    assert.equal(store.findContainer('default', 'again')?.origin, `${COPY}@one`);
    catalog.delete(catalog.resolve('default', 'web', 'one'));
    assert.deepEqual(halves(), []);
  }
});

test('a copy that is dropped stands in for nothing', async (t) => {
  const h = await withWeb(t);
  await h.zfs.receive(WEB, COPY);
  const catalog = await catalogOf(h);
  catalog.forgetCopies(COPY);
  catalog.delete(catalog.resolve('default', 'web', 'one'));
  assert.deepEqual([...catalog.all()], []);
  const another = await catalogOf(h);
  await h.zfs.destroy(COPY, { recursive: true });
  another.notice(await readPool(h.zfs, ROOT));
  another.delete(another.resolve('default', 'web', 'one'));
  assert.deepEqual([...another.all()], []);
});

test('what is taken away by hand again is no longer shown', async (t) => {
  const h = await withWeb(t);
  await h.zfs.receive(WEB, COPY);
  await h.store.strangers.notice(await readPool(h.zfs, ROOT));
  await h.zfs.destroy(COPY, { recursive: true });
  await h.store.strangers.notice(await readPool(h.zfs, ROOT));
  assert.deepEqual(foreign(h.store), []);
  assert.equal(
    h.store.datasets().some(({ dataset }) => dataset.startsWith(COPY)),
    false,
  );
});

test('looking for what came changes nothing of what is being made', async (t) => {
  const h = await withWeb(t);
  const listing = await readPool(h.zfs, ROOT);
  await h.store.prepare({ name: 'default/5/late', kind: 'active', parent: 'default/2/layer', labels: {} });
  await h.store.remove('default/3/web');
  const before = JSON.stringify(h.store.datasets().map(({ dataset, state }) => [dataset, state]));
  await h.store.strangers.notice(listing);
  assert.equal(JSON.stringify(h.store.datasets().map(({ dataset, state }) => [dataset, state])), before);
});

test('a pool that moved to other disks by zfs send is in use as before, and what comes later is not', async (t) => {
  const h = await withWeb(t);
  await h.zfs.set(ROOT, { 'stasis:format': '1' }); // as a stasisd does that claims it
  await h.zfs.receive(ROOT, 'tank/moved');
  const moved = { root: 'tank/moved' };
  const first = await h.restart(moved);
  assert.deepEqual(names(first), names(h.store));
  await h.zfs.set('tank/moved', { 'stasis:format': '1' });
  h.clock.seconds += 10;
  await h.zfs.set('tank/moved', { 'stasis:moved': '30' }); // in memory, time is the number of datasets
  const later = 'tank/moved/containers/default/later';
  for (let at = 0; at < 40; at++) await h.zfs.create(`tank/filler-${at}`);
  await h.zfs.receive('tank/moved/containers/default/web', later);
  const second = await h.restart(moved);
  assert.deepEqual(names(second), names(h.store));
  assert.deepEqual(foreign(second), [later]);
});

test('drop destroys what came from elsewhere by name alone, and nothing else', async (t) => {
  const h = await withWeb(t);
  await h.zfs.receive(WEB, COPY);
  const { store } = h;
  await store.strangers.notice(await readPool(h.zfs, ROOT));
  const whole = new Map<string, string[]>();
  const drop = (datasets: string[], dryRun = false) =>
    store.strangers.drop(datasets, { dryRun, checkpointsOf: (dataset) => whole.get(dataset) ?? [] });
  await assert.rejects(drop([]), isCode(Code.InvalidArgument));
  await assert.rejects(drop([COPY, `${ROOT}/containers/default/none`]), isCode(Code.NotFound));
  for (const ours of [WEB, `${ROOT}/layers/extract-1`, `${ROOT}/containers`])
    await assert.rejects(drop([COPY, ours]), isCode(Code.FailedPrecondition));
  whole.set(COPY, ['one']);
  await assert.rejects(drop([COPY]), /has the checkpoints one/);
  whole.clear();
  await h.zfs.clone(`${COPY}@one`, `${ROOT}/containers/default/clone`, {
    properties: Object.fromEntries(h.zfs.datasets.get(WEB)?.properties ?? []),
  });
  const other = await h.restart({ owner: 'another' });
  await assert.rejects(
    other.strangers.drop([COPY], { dryRun: false, checkpointsOf: () => [] }),
    /containers\/default\/clone stand on dataset/,
  );
  await h.zfs.destroy(`${ROOT}/containers/default/clone`);
  assert.deepEqual(
    (await drop([COPY], true)).dropped.map(({ dataset }) => dataset),
    [COPY],
  );
  assert.ok(h.zfs.datasets.has(COPY), 'a preview changes nothing');
  await drop([COPY]);
  assert.ok(![...h.zfs.datasets.keys()].some((name) => name.startsWith(COPY)));
  assert.deepEqual(foreign(store), []);
  assert.equal(store.stat('default/3/web').owner, OWNER);
});

test('what was adopted can be dropped too', async (t) => {
  const h = await withWeb(t);
  await h.zfs.receive(WEB, COPY);
  await h.store.strangers.notice(await readPool(h.zfs, ROOT));
  await h.store.strangers.adopt([COPY], { dryRun: false });
  const store = await h.restart();
  await store.strangers.drop([COPY], { dryRun: false, checkpointsOf: () => [] });
  assert.ok(!h.zfs.datasets.has(COPY));
});
