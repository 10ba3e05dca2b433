import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, codeOf, Unavailable } from '../../../src/errors.ts';
import { readPool } from '../../../snapshotter/load.ts';
import { harness, ROOT } from './harness.ts';

const place = (key: string): string => `${ROOT}/containers/default/${key}`;
const isCode = (code: Code) => (error: unknown) => codeOf(error) === code;

test('a dataset whose properties cannot be understood is named with what is wrong, and dropped by name alone', async (t) => {
  const h = await harness(t);
  for (const key of ['labels', 'owner', 'kind', 'layer', 'sound'])
    await h.store.prepare({ name: `default/1/${key}`, kind: 'active', parent: '', labels: {} });
  await h.zfs.set(place('labels'), { 'stasis:labels': 'garbage' });
  await h.zfs.inherit(place('owner'), 'stasis:owner');
  await h.zfs.set(place('kind'), { 'stasis:kind': 'other' });
  await h.zfs.set(place('layer'), { 'stasis:kind': 'committed' });
  await h.zfs.create(`${place('foreign')}`);
  const store = await h.restart();
  const why = new Map(store.health().unreadable.map((each) => [each.dataset, each.why]));
  assert.deepEqual([...why.keys()].sort(), ['kind', 'labels', 'layer', 'owner'].map(place));
  assert.match(why.get(place('labels')) ?? '', /garbage/);
  assert.match(why.get(place('owner')) ?? '', /has no stasis:owner/);
  assert.match(why.get(place('kind')) ?? '', /stasis:kind is "other"/);
  assert.match(why.get(place('layer')) ?? '', /has no snapshot @layer/);
  const { adopted, skipped, failed } = await store.strangers.adopt([], { dryRun: false });
  assert.deepEqual([adopted, failed], [[], []]);
  assert.deepEqual(skipped.map(({ dataset }) => dataset).sort(), [...why.keys()].sort());
  for (const { dataset, why: told } of skipped)
    assert.match(told, new RegExp(`^unreadable: .*stasis adopt --drop ${dataset}$`));
  await assert.rejects(store.remove('default/1/owner'), isCode(Code.NotFound));
  await store.sweep();
  const drop = (dataset: string) =>
    store.strangers.drop([dataset], { dryRun: false, checkpointsOf: () => [] });
  await assert.rejects(drop(place('foreign')), isCode(Code.FailedPrecondition));
  await assert.rejects(drop(place('sound')), isCode(Code.FailedPrecondition));
  for (const dataset of why.keys()) await drop(dataset);
  assert.deepEqual(store.health().unreadable, []);
  for (const dataset of why.keys()) assert.ok(!h.zfs.datasets.has(dataset));
});

test('adopt takes all that it can, and says what it could not take and why', async (t) => {
  const h = await harness(t);
  const other = await h.restart({ owner: 'another' });
  for (const key of ['a', 'b', 'c'])
    await other.prepare({ name: `default/1/${key}`, kind: 'active', parent: '', labels: {} });
  const zfs = new Proxy(h.zfs, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        if (name === 'set' && args[0] === refusing) throw new Unavailable('the pool does not answer');
        return Reflect.apply(value, target, args) as unknown;
      };
    },
  });
  let refusing = '';
  const store = await h.restart({ zfs });
  await h.zfs.destroy(place('b'), { recursive: true });
  const { adopted, failed } = await store.strangers.adopt([], { dryRun: false });
  assert.deepEqual(
    adopted.map(({ dataset }) => dataset),
    [place('a'), place('c')],
  );
  assert.deepEqual(
    failed.map(({ dataset, error }) => [dataset, codeOf(error)]),
    [[place('b'), Code.NotFound]],
  );
  assert.deepEqual((await store.strangers.adopt([], { dryRun: false })).failed, [], 'it is out of the index');
  await other.prepare({ name: 'default/1/d', kind: 'active', parent: '', labels: {} });
  await h.zfs.destroy(place('d'), { recursive: true });
  const preview = await h.restart();
  await preview.strangers.notice(await readPool(h.zfs, ROOT));
  assert.deepEqual((await preview.strangers.adopt([], { dryRun: true })).adopted, []);
  refusing = place('e');
  await other.prepare({ name: 'default/1/e', kind: 'active', parent: '', labels: {} });
  await store.strangers.notice(await readPool(h.zfs, ROOT));
  const stopped = await store.strangers.adopt([], { dryRun: false });
  assert.deepEqual(
    stopped.failed.map(({ error }) => codeOf(error)),
    [Code.Unavailable],
  );
});
