import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NotFound } from '../../../src/errors.ts';
import type { ChangedObjects } from '../../../src/zfs/send-stream.ts';
import { harness, ROOT, type Harness } from './harness.ts';
import { LAYER, rewindAndForget, state } from './methods.ts';

async function withLoop(h: Harness): Promise<void> {
  const { store } = h;
  await store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
  await store.commit({ name: LAYER, key: 'default/1/extract-1', labels: {}, parent: '' });
  await store.prepare({ name: 'default/10/loop', kind: 'active', parent: LAYER, labels: {} });
}

const containers = (h: Harness): string[] =>
  [...h.zfs.datasets.keys()].filter((name) => name.startsWith(`${ROOT}/containers/default/`)).sort();
const present = (h: Harness): string => h.store.findContainer('default', 'loop')?.dataset ?? '';

for (const kind of ['openzfs', 'zfs-fuse'] as const) {
  test(`${kind}: a checkpoint, a rewind to it and its removal, in a loop, leave one dataset once the grace time is over`, async (t) => {
    const h = await harness(t, {}, kind);
    await withLoop(h);
    for (let round = 0; round < 20; round++) {
      const dataset = present(h);
      const taken = h.store.snapshotNames(dataset);
      const free = ['l', 'l.2', 'l.3', 'l.4', 'l.5', 'l.6'].find((name) => !taken.has(name)) ?? 'none';
      assert.equal(await rewindAndForget(h, 'loop', free), dataset);
      if (round % 5 < 4) continue;
      const before = containers(h);
      await h.store.sweep();
      assert.deepEqual(containers(h), before, 'what was there before a rewind is kept for the grace time');
      h.clock.seconds += 101;
      const { failed } = await h.store.sweep();
      assert.deepEqual(failed, []);
      assert.deepEqual(containers(h), [present(h)]);
      assert.deepEqual(state(await h.restart()), state(h.store));
    }
  });
}

test('what has a checkpoint, or a snapshot that somebody made by hand, stays where it is', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  await withLoop(h);
  const first = await rewindAndForget(h, 'loop', 'a');
  await h.zfs.snapshot([`${first}@by-hand`]);
  const second = present(h);
  await h.zfs.snapshot([`${second}@kept`], { properties: { 'stasis:checkpoint': 'kept' } });
  h.store.noteCheckpoint(second, 'kept', 'kept');
  await rewindAndForget(h, 'loop', 'b');
  const before = containers(h);
  for (const store of [h.store, await h.restart()]) {
    await store.sweep();
    assert.deepEqual(containers(h), before);
  }
  await h.zfs.destroy(`${first}@by-hand`);
  const store = await h.restart();
  assert.deepEqual((await store.sweep()).failed, []);
  assert.ok(!h.zfs.datasets.has(first));
  assert.ok(h.zfs.datasets.has(`${second}@kept`));
});

test('a clone that has a snapshot of a name that it would take over leaves all as it is', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  await withLoop(h);
  const first = await rewindAndForget(h, 'loop', 'a');
  await h.zfs.snapshot([`${present(h)}@a`]);
  const before = containers(h);
  const { failed } = await h.store.sweep();
  assert.deepEqual([containers(h), failed], [before, []]);
  assert.ok(h.zfs.datasets.has(`${first}@a`));
});

test('a checkpoint that was there at the start and is removed holds its dataset no more', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  await withLoop(h);
  const dataset = present(h);
  await h.zfs.create(`${dataset}/memory`);
  const halves = [`${dataset}@a`, `${dataset}/memory@a`];
  for (const half of halves) await h.zfs.snapshot([half], { properties: { 'stasis:checkpoint': 'a' } });
  const store = await h.restart();
  await store.remove('default/10/loop');
  for (const half of halves.toReversed()) await h.zfs.destroy(half);
  await store.forgetCheckpoint(dataset, 'a');
  await store.sweep();
  assert.deepEqual(containers(h), []);
});

test('a disk in use is left for the next sweep, which does not wait for it', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  await withLoop(h);
  const first = await rewindAndForget(h, 'loop', 'a');
  await h.store.withName('default/10/loop', async () => {
    await h.store.sweep();
    assert.ok(h.zfs.datasets.has(`${first}@a`));
  });
  await h.store.sweep();
  assert.ok(!h.zfs.datasets.has(first));
});

test('a diff goes on when a snapshot between its two is handed over to another dataset meanwhile', async (t) => {
  const h = await harness(t, { trashGrace: 0 });
  const compared: string[] = [];
  const zfs = new Proxy(h.zfs, {
    get: (target, property) => {
      const value = Reflect.get(target, property, target) as unknown;
      if (property === 'changes') return changes;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  const store = await h.restart({ zfs });
  async function changes(from: string, to: string): Promise<ChangedObjects> {
    compared.push(`${from} ${to.replace(/@stasis-diff.*/, '@now')}`);
    if (compared.length === 1) await store.sweep();
    for (const name of [from, to]) if (!h.zfs.datasets.has(name)) throw new NotFound(`no ${name}`);
    return { objects: new Set([1]), contents: new Set(), plain: new Set(), anyAttributes: false };
  }
  await withLoop({ ...h, store });
  await h.zfs.create(`${ROOT}/reading`);
  const place = (key: string): string => store.findContainer('default', key)?.dataset ?? '';
  const clone = async (key: string, from: string, checkpoint: string): Promise<void> => {
    await h.zfs.snapshot([`${place(from)}@${checkpoint}`], {
      properties: { 'stasis:checkpoint': checkpoint },
    });
    store.noteCheckpoint(place(from), checkpoint, checkpoint);
    const labels = { 'containerd.io/snapshot/stasis.checkpoint': checkpoint };
    await store.prepare({ name: `default/11/${key}`, kind: 'active', parent: LAYER, labels });
  };
  await clone('one', 'loop', 'a');
  await clone('two', 'one', 'b');
  const source = place('loop');
  await store.remove('default/10/loop');
  await h.zfs.destroy(`${source}@a`, { defer: true });
  await store.forgetCheckpoint(source, 'a');
  await store.prepare({ name: 'default/12/view', kind: 'view', parent: LAYER, labels: {} });
  const known = await store.comparing(
    { left: 'default/12/view', right: 'default/11/two' },
    async (trees) => trees.known,
  );
  assert.deepEqual([...(known?.objects ?? [])], [1]);
  const [one, two] = [place('one'), place('two')];
  const layer = store.datasets().find(({ dataset }) => dataset === one)?.origin ?? '';
  assert.match(layer, /@layer$/);
  assert.deepEqual(compared, [
    `${one}@b ${two}@now`,
    `${source}@a ${one}@b`,
    `${one}@b ${two}@now`,
    `${layer} ${one}@b`,
  ]);
});
