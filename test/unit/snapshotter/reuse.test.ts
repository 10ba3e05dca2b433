import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { Code, codeOf } from '../../../src/errors.ts';
import { spelledChain } from '../../../snapshotter/chain.ts';
import type { SnapshotStore } from '../../../snapshotter/store.ts';
import { harness } from './harness.ts';

const digest = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;
const REF = 'containerd.io/snapshot.ref';
const base = digest('base');
const top = digest('top');
const chain = digest(`${base} ${top}`);
const spelled = {
  [REF]: chain,
  'containerd.io/snapshot/diff-id': top,
  'containerd.io/snapshot/parent-chain-id': base,
};

let serial = 1;
/** @param name containerd's, the layer's chain id as a rule; it has to be made beforehand where something stands on it */
async function unpack(
  store: SnapshotStore,
  namespace: string,
  name: string,
  parent: string,
  labels: Record<string, string>,
): Promise<string> {
  const key = `${namespace}/${serial++}/extract-1 ${name}`;
  await store.prepare({ name: key, kind: 'active', parent, labels });
  const committed = `${namespace}/${serial++}/${name}`;
  await store.commit({ name: committed, key, labels, parent: '' });
  return committed;
}

const isHere = (error: unknown): boolean => {
  assert.equal(codeOf(error), Code.AlreadyExists);
  return /is in the pool already/.test(String(error));
};

test('a chain id is spelled out by the digests of a layer and of what is below it, and by nothing else', () => {
  assert.equal(spelledChain(spelled), chain);
  assert.equal(spelledChain({ 'containerd.io/snapshot/diff-id': base }), base);
  assert.equal(spelledChain({ [REF]: chain }), undefined);
  assert.equal(spelledChain({ 'containerd.io/snapshot/parent-chain-id': base }), undefined);
  assert.equal(spelledChain({ ...spelled, 'containerd.io/snapshot/diff-id': 'sha256:short' }), undefined);
  assert.equal(spelledChain({ ...spelled, 'containerd.io/snapshot/parent-chain-id': 'x' }), undefined);
});

for (const [how, labels] of [
  ['the digests', spelled],
  ['the name alone, as by a client that gives no labels', {}],
] as const) {
  test(`a layer that another namespace unpacked on a base of its own is told by ${how}, and is not fetched again`, async (t) => {
    const h = await harness(t);
    const { store } = h;
    const first = await unpack(store, 'default', base, '', {});
    await unpack(store, 'default', chain, first, labels);
    const second = await unpack(store, 'other', base, '', {});
    h.commands();
    const again = {
      name: `other/90/extract-9 ${chain}`,
      kind: 'active',
      parent: second,
      labels: spelled,
    } as const;
    await assert.rejects(store.prepare(again), isHere);
    assert.deepEqual(h.commands(), ['clone', 'snapshot']);
    // What containerd looks for then.
    const found = [...store.list([`labels."${REF}"==${chain},parent=="${second}"`])];
    assert.deepEqual(
      found.map(({ name, kind }) => [name, kind]),
      [[again.name, 'committed']],
    );
    // The one that it is a clone of may go before it.
    for (const { name } of [...store.list([`name~="^default/"`])].toReversed()) await store.remove(name);
    assert.deepEqual((await store.sweep()).failed, []);
    await (
      await h.restart()
    ).prepare({ name: 'other/91/web', kind: 'active', parent: again.name, labels: {} });
  });
}

test('a label alone does not make a layer that is in use elsewhere another one, nor do digests that say something else', async (t) => {
  const { store } = await harness(t);
  const first = await unpack(store, 'default', base, '', {});
  await unpack(store, 'default', chain, first, spelled);
  const second = await unpack(store, 'other', base, '', {});
  for (const labels of [{ [REF]: chain }, { ...spelled, 'containerd.io/snapshot/diff-id': digest('else') }]) {
    const name = `other/${serial++}/extract-9 ${chain}`;
    await store.prepare({ name, kind: 'active', parent: second, labels });
    await store.remove(name);
  }
});

test('what is received and not adopted is never taken for a layer, and is after it', async (t) => {
  const h = await harness(t);
  const lowest = { [REF]: base, 'containerd.io/snapshot/diff-id': base };
  await unpack(h.store, 'default', base, '', {});
  const other = await h.restart({ owner: 'another' });
  const again = { name: 'default/80/extract-8', kind: 'active', parent: '', labels: lowest } as const;
  await other.prepare(again);
  await other.remove(again.name);
  await other.strangers.adopt([], { dryRun: false });
  await assert.rejects(other.prepare({ ...again, name: 'default/81/extract-8' }), isHere);
});

test("an annotation of an image's layer does not get a checkpoint's disk", async (t) => {
  const h = await harness(t);
  const { store } = h;
  await store.prepare({ name: 'default/1/web', kind: 'active', parent: '', labels: {} });
  const dataset = store.findContainer('default', 'web')?.dataset ?? '';
  await h.zfs.snapshot([`${dataset}@one`], { properties: { 'stasis:checkpoint': 'id-one' } });
  store.noteCheckpoint(dataset, 'one', 'id-one');
  const name = `other/2/extract-2 ${base}`;
  const label = 'containerd.io/snapshot/stasis.checkpoint';
  h.commands();
  await store.prepare({ name, kind: 'active', parent: '', labels: { [REF]: base, [label]: 'id-one' } });
  assert.deepEqual(h.commands(), ['create']);
  assert.deepEqual(store.stat(name).labels, { [REF]: base });
});
