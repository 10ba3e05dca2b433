import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { destroyIfEmpty } from '../../../src/setup/dataset.ts';
import { FakeZfs } from '../snapshotter/fake-zfs.ts';

const ROOT = 'tank/stasis';

/** A pool on which stasisd has run once. */
async function used(t: TestContext): Promise<FakeZfs> {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-dataset-'));
  t.after(() => rm(folder, { recursive: true }));
  const zfs = new FakeZfs(folder, 'openzfs');
  for (const name of ['', '/layers', '/containers', '/trash', '/reading']) await zfs.create(ROOT + name);
  return zfs;
}

suite("the undoing of setup's dataset", () => {
  test('takes what stasisd made for itself', async (t) => {
    const zfs = await used(t);
    assert.equal(await destroyIfEmpty(zfs, ROOT), 'destroyed');
    assert.deepEqual([...zfs.datasets.keys()], ['tank']);
    assert.equal(await destroyIfEmpty(zfs, ROOT), 'absent');
  });

  test('takes the container of the check, wherever it waits to be destroyed', async (t) => {
    const zfs = await used(t);
    const properties = { 'stasis:key': 'stasis-setup-check/7/check' };
    await zfs.create(`${ROOT}/containers/stasis-setup-check`);
    await zfs.create(`${ROOT}/containers/stasis-setup-check/check`, { properties });
    await zfs.create(`${ROOT}/containers/stasis-setup-check/check/memory`);
    await zfs.create(`${ROOT}/trash/1764000000-check`, { properties });
    assert.equal(await destroyIfEmpty(zfs, ROOT), 'destroyed');
    assert.deepEqual([...zfs.datasets.keys()], ['tank']);
  });

  for (const [what, name, key] of [
    ['a container', 'containers/default/web', 'default/3/web'],
    ['a container in the trash', 'trash/1764000000-check', 'default/3/check'],
    ['a layer', 'layers/0123456789abcdef', 'stasis-setup/1/sha256:0'],
    ['a dataset of the administrator', 'mine', undefined],
  ] as const) {
    test(`leaves all as it is where there is ${what}`, async (t) => {
      const zfs = await used(t);
      if (name.includes('default/')) await zfs.create(`${ROOT}/containers/default`);
      await zfs.create(`${ROOT}/${name}`, key === undefined ? {} : { properties: { 'stasis:key': key } });
      const before = [...zfs.datasets.keys()];
      assert.equal(await destroyIfEmpty(zfs, ROOT), 'used');
      assert.deepEqual([...zfs.datasets.keys()], before);
    });
  }

  test('leaves all as it is where the root itself has a snapshot', async (t) => {
    const zfs = await used(t);
    await zfs.snapshot([`${ROOT}@mine`]);
    assert.equal(await destroyIfEmpty(zfs, ROOT), 'used');
  });

  test('waits for what a stasisd that was stopped still does', async (t) => {
    const zfs = await used(t);
    zfs.busy.add(`${ROOT}/reading`);
    setTimeout(() => zfs.busy.delete(`${ROOT}/reading`), 300);
    assert.equal(await destroyIfEmpty(zfs, ROOT), 'destroyed');
  });
});
