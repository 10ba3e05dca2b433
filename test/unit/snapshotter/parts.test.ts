import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileFilters } from '../../../snapshotter/filters.ts';
import { KeyedLocks } from '../../../snapshotter/locks.ts';
import { Layout } from '../../../snapshotter/layout.ts';
import {
  decodeText,
  encodeText,
  encodeTime,
  parseState,
  parseTime,
  stateValue,
} from '../../../snapshotter/properties.ts';
import type { Snapshot } from '../../../snapshotter/snapshot.ts';

const snapshot: Snapshot = {
  name: 'default/1/a b',
  kind: 'active',
  parent: '',
  labels: { 'containerd.io/snapshot.ref': 'sha256:aa', plain: 'x,y', empty: '' },
  created: { seconds: 1n, nanos: 5 },
  updated: { seconds: 1n, nanos: 5 },
  owner: 'o',
  generation: 1,
  dataset: 't/a',
};

const filters: readonly (readonly [string, boolean])[] = [
  ['', true],
  ['name=="default/1/a b"', true],
  ['name=="default/1/a\\u0020b"', true],
  ['kind==active', true],
  ['kind==view', false],
  ['kind!=view,name~=|a b$|', true],
  ['kind!=view,name~=/^a/', false],
  ['labels."containerd.io/snapshot.ref"', true],
  ['labels.absent', false],
  ['labels.absent!=x', true],
  ['labels.absent==""', false],
  ['labels.plain=="x,y"', true],
  ['parent', false],
  ['parent==""', true],
  ['unknown==x', false],
];
for (const [expression, expected] of filters) {
  test(`filter ${expression === '' ? '(empty)' : expression} is ${expected}`, () => {
    assert.equal(compileFilters([expression])(snapshot), expected);
  });
}

test('filters that cannot be understood are refused, and say where', () => {
  for (const expression of ['name==', '==x', 'name=="x', 'name=x', 'name==a b', 'name~="["', ',']) {
    assert.throws(() => compileFilters([expression]), /position \d+/, expression);
  }
});

test('text, times and states come back from their property form', () => {
  for (const text of ['', 'plain', '100%', '%41', 'é\n\t\0', '☃🚢', ' x '])
    assert.equal(decodeText(encodeText(text)), text);
  assert.match(encodeText('é\n\t\0☃'), /^[\x20-\x7e]+$/);
  const time = { seconds: 1_764_161_607n, nanos: 42 };
  assert.equal(encodeTime(time), '1764161607.000000042');
  assert.deepEqual(parseTime(encodeTime(time)), time);
  assert.deepEqual(parseState(stateValue('removed', 17.9)), { state: 'removed', since: 17 });
  assert.deepEqual(parseState('something else'), { state: 'live', since: 0 });
});

test('a dataset is found where an administrator would look for it', () => {
  const layout = new Layout('tank/stasis');
  const free = (): boolean => false;
  const chain = 'a'.repeat(64);
  assert.equal(layout.place('default/7/web', {}, free), 'tank/stasis/containers/default/web');
  assert.equal(
    layout.place(`default/7/extract-1-x sha256:${chain}`, {}, free),
    `tank/stasis/layers/${'a'.repeat(16)}`,
  );
  assert.equal(layout.place('k8s.io/7//tmp/x y', {}, free), 'tank/stasis/containers/k8s.io/tmp-x-y');
  assert.equal(layout.place('no sequence', {}, free), 'tank/stasis/containers/_/no-sequence');
  assert.equal(layout.place('default/1/☃', {}, free), 'tank/stasis/containers/default/_');
  assert.equal(
    layout.placeBeside('tank/stasis/containers/default/web.2', (name) => !name.endsWith('.3')),
    'tank/stasis/containers/default/web.3',
  );
  const deep = new Layout(`tank/${'d'.repeat(140)}`);
  const long = deep.place(`${'n'.repeat(76)}/7/${'k'.repeat(200)}`, {}, free);
  assert.match(long, /\/containers\/n{64}\/k{16,}$/, 'the last part is what is cut');
  assert.ok(long.length <= 247);
  assert.throws(
    () => new Layout(`tank/${'d'.repeat(220)}`).place('namespace/7/some-long-container-name', {}, free),
    /too long for datasets below it/,
  );
  assert.equal(layout.trashedAt(layout.placeInTrash('tank/stasis/containers/default/web', 17.5, free)), 17);
});

test('an exclusive lock waits for sharers, is not overtaken by later ones, and nothing is kept when all is done', async () => {
  const locks = new KeyedLocks();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const step = (name: string, wait?: Promise<void>) => async (): Promise<void> => {
    order.push(`${name} in`);
    await wait;
    order.push(`${name} out`);
  };
  const all = [
    locks.run({ shared: ['a'] }, step('reader 1', gate.promise)),
    locks.run({ shared: ['a'] }, step('reader 2', gate.promise)),
    locks.run({ exclusive: ['a', 'b'] }, step('writer')),
    locks.run({ shared: ['a'] }, step('reader 3')),
  ];
  await new Promise(setImmediate);
  assert.deepEqual(order, ['reader 1 in', 'reader 2 in']);
  gate.resolve();
  await Promise.all(all);
  assert.deepEqual(order.slice(-4), ['writer in', 'writer out', 'reader 3 in', 'reader 3 out']);
  assert.equal(locks.size, 0);
  await assert.rejects(locks.run({ exclusive: ['a'] }, () => Promise.reject(new Error('no'))));
  assert.equal(locks.size, 0, 'a failure releases');
});
