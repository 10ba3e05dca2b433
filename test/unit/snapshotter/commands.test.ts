import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, codeOf, messageOf } from '../../../src/errors.ts';
import type { Harness } from './harness.ts';
import { harness } from './harness.ts';

async function withLayer(h: Harness): Promise<void> {
  await h.store.prepare({ name: 'default/1/extract-1 sha256:aa', kind: 'active', parent: '', labels: {} });
  await h.store.commit({
    name: 'default/2/layer',
    key: 'default/1/extract-1 sha256:aa',
    labels: {},
    parent: '',
  });
  await h.store.prepare({ name: 'default/3/first', kind: 'active', parent: 'default/2/layer', labels: {} });
  h.commands();
}

test('each write is one zfs command, and reads are none', async (t) => {
  const h = await harness(t);
  await withLayer(h);
  const cost = async (work: () => unknown): Promise<string[]> => {
    await work();
    return h.commands();
  };
  const { store } = h;
  const make = (name: string, kind: 'active' | 'view', parent: string) => () =>
    store.prepare({ name, kind, parent, labels: {} });
  assert.deepEqual(await cost(make('default/4/web', 'active', 'default/2/layer')), ['clone']);
  assert.deepEqual(await cost(make('default/5/view', 'view', 'default/2/layer')), ['clone']);
  assert.deepEqual(await cost(make('default/6/extract-2 sha256:bb', 'active', '')), ['create']);
  assert.deepEqual(
    await cost(() =>
      store.commit({ name: 'default/7/b', key: 'default/6/extract-2 sha256:bb', labels: {}, parent: '' }),
    ),
    ['snapshot'],
  );
  assert.deepEqual(
    await cost(() => store.update({ name: 'default/4/web', labels: { a: 'b' }, paths: undefined })),
    ['set'],
  );
  assert.deepEqual(await cost(() => store.mounts('default/4/web')), []);
  assert.deepEqual(await cost(() => store.stat('default/4/web')), []);
  assert.deepEqual(await cost(() => [...store.list(['kind==active'])]), []);
  assert.deepEqual(await cost(() => store.usage('default/2/layer')), []);
  assert.deepEqual(await cost(() => store.usage('default/4/web')), []);
  assert.deepEqual(await cost(() => store.remove('default/4/web')), ['rename']);
  assert.deepEqual(await cost(() => store.remove('default/5/view')), ['destroyIdempotent']);
  assert.deepEqual(await cost(() => store.remove('default/7/b')), ['set']);
});

test('a start lists the pool once, once more for all long label sets together, and asks the root alone', async (t) => {
  const h = await harness(t);
  await withLayer(h);
  for (const name of ['default/4/a', 'default/5/b'])
    await h.store.prepare({ name, kind: 'active', parent: 'default/2/layer', labels: {} });
  h.commands();
  await h.restart();
  assert.deepEqual(h.commands(), ['list', 'list']);
  for (const name of ['default/4/a', 'default/5/b'])
    await h.store.update({ name, labels: { long: 'x'.repeat(3000) }, paths: undefined });
  h.commands();
  const store = await h.restart();
  assert.deepEqual(h.commands(), ['list', 'list', 'list']);
  assert.equal(store.stat('default/5/b').labels['long']?.length, 3000);
});

test('a label set that does not fit in a property survives a restart, and so does each change of it', async (t) => {
  const h = await harness(t);
  const long = (mark: string): Record<string, string> =>
    Object.fromEntries(Array.from({ length: 5 }, (_, at) => [`label-${at}`, `${mark} "é\n\t%" `.repeat(60)]));
  await h.store.prepare({ name: 'default/1/web', kind: 'active', parent: '', labels: long('one') });
  assert.deepEqual((await h.restart()).stat('default/1/web').labels, long('one'));
  for (const mark of ['two', 'three']) {
    await h.store.update({ name: 'default/1/web', labels: long(mark), paths: undefined });
    assert.deepEqual((await h.restart()).stat('default/1/web').labels, long(mark));
  }
  await h.store.update({ name: 'default/1/web', labels: { short: 'x' }, paths: undefined });
  assert.deepEqual((await h.restart()).stat('default/1/web').labels, { short: 'x' });
});

test('keys and labels of every legal and hostile character come back from the pool as they were', async (t) => {
  const h = await harness(t);
  const keys = [
    'plain',
    'a b:c/d',
    '../../etc',
    '-',
    '@x',
    '%41%',
    'ünïcødé ☃ 🚢',
    'tab\there',
    'line\nbreak',
    '\u0001\u007f',
    'q\'"$`\\',
  ];
  const labels = Object.fromEntries(keys.map((key) => [key, key]));
  for (const [at, key] of keys.entries()) {
    await h.store.prepare({ name: `default/${at}/${key}`, kind: 'active', parent: '', labels });
  }
  const store = await h.restart();
  for (const [at, key] of keys.entries()) {
    assert.deepEqual(store.stat(`default/${at}/${key}`).labels, labels);
    assert.equal(store.findContainer('default', key)?.name, `default/${at}/${key}`);
  }
  for (const { dataset } of store.datasets()) assert.match(dataset, /^[A-Za-z0-9_.:/-]+$/);
});

test('a key that is empty or too long is refused as such before anything is made', async (t) => {
  const h = await harness(t);
  await h.store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
  const before = [...h.zfs.datasets.keys()];
  const refused = (call: Promise<unknown>, what: RegExp): Promise<void> =>
    assert.rejects(call, (error) => {
      assert.match(messageOf(error), what);
      return codeOf(error) === Code.InvalidArgument;
    });
  for (const [name, what] of [
    ['', /empty/],
    ['default/5/', /empty/],
    [
      `default/5/${'k'.repeat(1100)}`,
      /the snapshot's key is too long: 1110 bytes .* 1024 fit: default\/5\/kkk/,
    ],
  ] as const) {
    for (const kind of ['active', 'view'] as const)
      await refused(h.store.prepare({ name, kind, parent: '', labels: {} }), what);
    await refused(h.store.commit({ name, key: 'default/1/extract-1', labels: {}, parent: '' }), what);
  }
  assert.deepEqual([...h.zfs.datasets.keys()], before);
});

test('two keys that read alike get datasets of their own', async (t) => {
  const { store } = await harness(t);
  await store.prepare({ name: 'default/1/a b', kind: 'active', parent: '', labels: {} });
  await store.prepare({ name: 'default/2/a:b', kind: 'active', parent: '', labels: {} });
  assert.deepEqual(
    ['a b', 'a:b'].map((key) => store.findContainer('default', key)?.dataset),
    ['tank/stasis/containers/default/a-b', 'tank/stasis/containers/default/a-b.2'],
  );
});

test('a dataset that somebody made by hand is stepped around and left alone', async (t) => {
  const h = await harness(t);
  await withLayer(h);
  await h.zfs.create('tank/stasis/containers/default/web');
  await h.store.prepare({ name: 'default/9/web', kind: 'active', parent: '', labels: {} });
  assert.equal(h.store.findContainer('default', 'web')?.dataset, 'tank/stasis/containers/default/web.2');
  assert.ok(h.zfs.datasets.has('tank/stasis/containers/default/web'));
});

test("max-size becomes the dataset's refquota, and what is no size is refused", async (t) => {
  const h = await harness(t);
  const labels = { 'containerd.io/snapshot/max-size': '1048576' };
  await h.store.prepare({ name: 'default/1/web', kind: 'active', parent: '', labels });
  assert.equal(
    h.zfs.datasets.get('tank/stasis/containers/default/web')?.properties.get('refquota'),
    '1048576',
  );
  const bad = { 'containerd.io/snapshot/max-size': '1G' };
  await assert.rejects(
    h.store.prepare({ name: 'default/2/x', kind: 'active', parent: '', labels: bad }),
    /max-size/,
  );
});
