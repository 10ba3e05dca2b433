import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Code, codeOf, InvalidArgument, messageOf, ResourceExhausted } from '../../../src/errors.ts';
import { harness, type Harness } from './harness.ts';

const LIMIT = 'containerd.io/snapshot/max-size';
const CHECKPOINT = 'containerd.io/snapshot/stasis.checkpoint';
const name = 'default/1/web';
const dataset = 'tank/stasis/containers/default/web';
const snapshot = `${dataset}@one`;

/** A container of 1 MiB with a checkpoint `id-one`, whose disk holds `held` bytes. */
async function limited(t: TestContext, held = '1000'): Promise<Harness> {
  const h = await harness(t);
  await h.store.prepare({ name, kind: 'active', parent: '', labels: { [LIMIT]: '1048576' } });
  const properties = { 'stasis:checkpoint': 'id-one', referenced: held };
  await h.zfs.snapshot([snapshot], { properties });
  h.store.noteCheckpoint(dataset, 'one', 'id-one');
  h.commands();
  return h;
}

const copy = (labels: Record<string, string> = {}) =>
  ({
    name: 'default/2/copy',
    kind: 'active',
    parent: '',
    labels: { [CHECKPOINT]: 'id-one', ...labels },
  }) as const;

function limitOf({ zfs, store }: Harness, key: string): string | undefined {
  const at = store.findContainer('default', key)?.dataset ?? '';
  return zfs.datasets.get(at)?.properties.get('refquota');
}

test('a rewound container has the limit that it had, by the one clone', async (t) => {
  const h = await limited(t);
  await (await h.store.rewind(name, snapshot)).done();
  assert.equal(h.commands()[0], 'clone');
  assert.notEqual(h.store.findContainer('default', 'web')?.dataset, dataset);
  assert.equal(limitOf(h, 'web'), '1048576');
});

test("a clone of a checkpoint has its source's limit, and so has a clone of that, after a restart too", async (t) => {
  const h = await limited(t);
  await h.store.remove(name);
  const store = await h.restart();
  await store.prepare(copy());
  const made = store.findContainer('default', 'copy')?.dataset ?? '';
  assert.equal(store.stat('default/2/copy').labels[LIMIT], '1048576');
  await h.zfs.snapshot([`${made}@two`], { properties: { 'stasis:checkpoint': 'id-two' } });
  const again = await h.restart();
  await again.prepare({ ...copy(), name: 'default/3/next', labels: { [CHECKPOINT]: 'id-two' } });
  for (const key of ['copy', 'next']) {
    const at = again.findContainer('default', key)?.dataset ?? '';
    assert.equal(h.zfs.datasets.get(at)?.properties.get('refquota'), '1048576', key);
  }
});

test('a clone that is given a limit of its own has that, and one of a container without a limit has none', async (t) => {
  const h = await limited(t);
  await h.store.prepare(copy({ [LIMIT]: '2097152' }));
  assert.equal(limitOf(h, 'copy'), '2097152');
  await h.store.update({ name, labels: {}, paths: ['labels'] });
  await h.store.prepare({ ...copy(), name: 'default/3/free' });
  assert.equal(limitOf(h, 'free'), undefined);
});

test('a disk that outgrew its limit by a little comes back, with the room that it takes', async (t) => {
  const h = await limited(t, '1050000');
  await h.store.prepare(copy());
  assert.equal(limitOf(h, 'copy'), '1050000');
  await (await h.store.rewind(name, snapshot)).done();
  assert.equal(limitOf(h, 'web'), '1050000');
  assert.equal(h.store.stat(name).labels[LIMIT], '1048576');
});

test('a change of the label changes the limit, and a label of anything else does not touch it', async (t) => {
  const h = await limited(t);
  const update = async (labels: Record<string, string>) =>
    h.store.update({ name, labels, paths: Object.keys(labels).map((key) => `labels.${key}`) });
  await update({ other: 'x' });
  assert.deepEqual([h.commands(), limitOf(h, 'web')], [['set'], '1048576']);
  await update({ [LIMIT]: '4194304' });
  assert.deepEqual([h.commands(), limitOf(h, 'web')], [['set', 'set'], '4194304']);
  await assert.rejects(update({ [LIMIT]: '4M' }), InvalidArgument);
  assert.deepEqual(h.commands(), []);
  await update({ [LIMIT]: '' });
  assert.equal(limitOf(h, 'web'), 'none');
});

test('a limit that ZFS refuses leaves the label as it is', async (t) => {
  const h = await limited(t);
  h.zfs.set = async () => {
    throw new ResourceExhausted("cannot set property for 'web': size is less than current used");
  };
  await assert.rejects(
    h.store.update({ name, labels: { [LIMIT]: '1' }, paths: [`labels.${LIMIT}`] }),
    ResourceExhausted,
  );
  assert.equal(h.store.stat(name).labels[LIMIT], '1048576');
});

test('a limit below what the image takes is refused by its label, and nothing is left', async (t) => {
  const h = await harness(t);
  await h.store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
  await h.store.commit({ name: 'default/2/layer', key: 'default/1/extract-1', labels: {}, parent: '' });
  await h.zfs.set(`${h.store.stat('default/2/layer').dataset}@layer`, { referenced: '5000000' });
  const before = [...h.zfs.datasets.keys()];
  const request = { name: 'default/3/web', kind: 'active', parent: 'default/2/layer' } as const;
  await assert.rejects(h.store.prepare({ ...request, labels: { [LIMIT]: '1048576' } }), (error) => {
    assert.match(messageOf(error), /max-size is 1048576, and the files of the image take 5000000 bytes/);
    return codeOf(error) === Code.FailedPrecondition;
  });
  const folder = 'tank/stasis/containers/default';
  assert.deepEqual(
    [...h.zfs.datasets.keys()].filter((dataset) => dataset !== folder),
    before,
  );
  await h.store.prepare({ ...request, labels: { [LIMIT]: '6000000' } });
});
