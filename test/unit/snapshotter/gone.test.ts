import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, codeOf, NotFound } from '../../../src/errors.ts';
import { harness, ROOT } from './harness.ts';
import { LAYER, prepared, state, WEB } from './methods.ts';

const isGone = (error: unknown): boolean => codeOf(error) === Code.NotFound;

for (const kind of ['openzfs', 'zfs-fuse'] as const) {
  test(`a dataset that was destroyed by hand is removed by its key, and stops nothing, on ${kind}`, async (t) => {
    const h = await harness(t, {}, kind);
    await prepared(h);
    const store = await h.restart();
    const dataset = store.findContainer('default', 'job')?.dataset ?? '';
    await h.zfs.destroy(dataset, { recursive: true });
    assert.deepEqual(await store.gone(), [dataset]);
    await store.remove('default/6/job');
    assert.deepEqual(await store.gone(), []);
    assert.equal(store.lookup('default/6/job'), undefined);
    assert.deepEqual(state(store), state(await h.restart()));
    await assert.rejects(store.remove('default/6/job'), isGone);
  });
}

test('whatever asks for a dataset that was destroyed by hand is told that the snapshot does not exist', async (t) => {
  for (const [what, ask] of Object.entries({
    mounts: (store) => store.mounts(WEB),
    usage: (store) => store.usage(WEB),
    update: (store) => store.update({ name: WEB, labels: {}, paths: undefined }),
    commit: (store) => store.commit({ name: 'default/9/new', key: WEB, labels: {}, parent: '' }),
  } satisfies Record<string, (store: Awaited<ReturnType<typeof harness>>['store']) => Promise<unknown>>)) {
    const h = await harness(t);
    const dataset = await prepared(h);
    const store = await h.restart();
    await h.zfs.destroy(dataset, { recursive: true });
    await assert.rejects(ask(store), new RegExp(`snapshot ${WEB} does not exist`), what);
    assert.equal(store.lookup(WEB), undefined, what);
    assert.deepEqual(state(store), state(await h.restart()));
  }
});

test('a layer that was destroyed by hand, or its snapshot alone, is no parent any more', async (t) => {
  for (const what of ['the whole of it', 'its snapshot alone']) {
    const h = await harness(t);
    await h.store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
    await h.store.commit({ name: LAYER, key: 'default/1/extract-1', labels: {}, parent: '' });
    const dataset = h.store.stat(LAYER).dataset;
    await h.zfs.destroy(what === 'the whole of it' ? dataset : `${dataset}@layer`, { recursive: true });
    const child = { name: WEB, kind: 'active', parent: LAYER, labels: {} } as const;
    await assert.rejects(h.store.prepare(child), /parent snapshot default\/2\/layer does not exist/);
    assert.deepEqual(state(h.store), state(await h.restart()), what);
  }
});

test('the folder of a namespace that was destroyed by hand is made again', async (t) => {
  const h = await harness(t);
  await h.store.prepare({ name: WEB, kind: 'active', parent: '', labels: {} });
  await h.zfs.destroy(`${ROOT}/containers/default`, { recursive: true });
  await h.store.prepare({ name: 'default/9/new', kind: 'active', parent: '', labels: {} });
  assert.ok(h.zfs.datasets.has(`${ROOT}/containers/default/new`));
});

test('a pool that is exported has nothing, and nothing of it is forgotten', async (t) => {
  const h = await harness(t);
  await prepared(h);
  let exported = false;
  const zfs = new Proxy(h.zfs, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        if (exported) throw new NotFound(`cannot open '${String(args[0])}': no such pool`);
        return Reflect.apply(value, target, args) as unknown;
      };
    },
  });
  const store = await h.restart({ zfs });
  const before = state(store);
  exported = true;
  for (const ask of [() => store.remove('default/6/job'), () => store.remove(WEB), () => store.gone()])
    await assert.rejects(ask(), /no such pool/);
  assert.deepEqual(state(store), before);
  exported = false;
  await store.remove('default/6/job');
});
