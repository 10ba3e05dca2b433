import assert from 'node:assert/strict';
import { test } from 'node:test';
import { destroyLateHalf } from '../../../src/checkpoint/late-half.ts';
import { KeyedMutex } from '../../../src/checkpoint/locks.ts';
import { NotFound } from '../../../src/errors.ts';

const half = { snapshot: 'tank/web@one', id: 'c1', key: 'default/web' };

/** What is destroyed where the looks find the snapshot with these ids. */
async function destroyed(...ids: (string | undefined)[]): Promise<string[]> {
  const names: string[] = [];
  const zfs = {
    list: async () => {
      const id = ids.shift();
      if (id === undefined) throw new NotFound('no such snapshot');
      return [{ properties: new Map([['stasis:checkpoint', { value: id }]]) }];
    },
    destroyIdempotent: async (name: string) => void names.push(name),
  };
  await destroyLateHalf({ locks: new KeyedMutex(), zfs } as never, half, [1, 1, 1]);
  return names;
}

test('a half that comes late is destroyed once, and another checkpoint of its name is left alone', async () => {
  assert.deepEqual(await destroyed(undefined, 'c1', 'c1'), [half.snapshot]);
  assert.deepEqual(await destroyed('c2', 'c2', 'c2'), []);
  assert.deepEqual(await destroyed(undefined, undefined, undefined), []);
});

test('nothing is looked at while the container is locked', async () => {
  const locks = new KeyedMutex();
  let looks = 0;
  const zfs = { list: async () => (looks++, []), destroyIdempotent: async () => undefined };
  let late: Promise<void> | undefined;
  await locks.run(half.key, async () => {
    late = destroyLateHalf({ locks, zfs } as never, half, [1]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(looks, 0);
  });
  await late;
  assert.equal(looks, 1);
});
