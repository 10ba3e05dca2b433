import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailedPrecondition, InvalidArgument } from '../../../src/errors.ts';
import { harness } from './harness.ts';

const UIDS = 'containerd.io/snapshot/uidmapping';
const GIDS = 'containerd.io/snapshot/gidmapping';
const labels = { [UIDS]: '0:100000:65536', [GIDS]: '0:200000:65536' };
const asked = ['uidmap=0:100000:65536', 'gidmap=0:200000:65536'];
const name = 'default/1/web';
const web = { name, kind: 'active', parent: '', labels } as const;
const mapsIds = async (): Promise<boolean> => true;

test('the mounts of a snapshot with a mapping say so, for a view as well, and after a restart', async (t) => {
  const h = await harness(t, { mapsIds });
  assert.deepEqual((await h.store.prepare(web))[0]?.options, ['rw', 'rbind', ...asked]);
  const view = { ...web, name: 'default/2/view', kind: 'view' } as const;
  assert.deepEqual((await h.store.prepare(view))[0]?.options, ['ro', 'rbind', ...asked]);
  const store = await h.restart();
  assert.deepEqual((await store.mounts(name))[0]?.options, ['rw', 'rbind', ...asked]);
});

test("a clone of a checkpoint has its source's mapping, and its place is told with it", async (t) => {
  const h = await harness(t, { mapsIds });
  await h.store.prepare(web);
  const dataset = h.store.findContainer('default', 'web')?.dataset ?? '';
  await h.zfs.snapshot([`${dataset}@one`], { properties: { 'stasis:checkpoint': 'id-one' } });
  const store = await h.restart();
  const place = store.whenPlaced('default', 'copy');
  const copy = {
    name: 'default/3/copy',
    kind: 'active',
    parent: '',
    labels: { 'containerd.io/snapshot/stasis.checkpoint': 'id-one' },
  } as const;
  const [mount] = await store.prepare(copy);
  assert.ok(mount !== undefined);
  assert.deepEqual(mount.options, ['rw', 'rbind', ...asked]);
  assert.deepEqual((await place.mount)?.options, mount.options);
  place.close();
  assert.partialDeepStrictEqual(store.stat(copy.name).labels, labels);
});

test('where ids cannot be mapped the snapshot is refused, and nothing is left of it', async (t) => {
  const h = await harness(t, { mapsIds: async () => false });
  await assert.rejects(h.store.prepare(web), (error: unknown) => {
    assert.ok(error instanceof FailedPrecondition);
    assert.match(error.message, /default\/1\/web cannot appear under other ids/);
    return true;
  });
  assert.deepEqual(
    [...h.zfs.datasets.keys()].filter((dataset) => dataset.includes('web')),
    [],
  );
  await h.store.prepare({ ...web, labels: {} });
});

test('a host that could not map ids once is asked again, and one that could is not', async (t) => {
  const answers = [false, true];
  const h = await harness(t, { mapsIds: async () => answers.shift() ?? assert.fail('asked once more') });
  await assert.rejects(h.store.prepare(web), FailedPrecondition);
  await h.store.prepare(web);
  await h.store.prepare({ ...web, name: 'default/2/other' });
  assert.deepEqual(answers, []);
});

test('half a mapping, or one that is none, is refused before anything is made', async (t) => {
  const h = await harness(t, { mapsIds });
  h.commands();
  const wrong: Record<string, string>[] = [
    { [UIDS]: '0:100000:65536' },
    { [GIDS]: '0:100000:65536' },
    { ...labels, [UIDS]: '0-100000' },
    { ...labels, [GIDS]: '0:4294967295:2' },
  ];
  for (const bad of wrong)
    await assert.rejects(h.store.prepare({ ...web, labels: bad }), InvalidArgument, JSON.stringify(bad));
  assert.deepEqual(h.commands(), []);
});
