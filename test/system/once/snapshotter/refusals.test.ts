import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { after, before, suite, test } from 'node:test';
import { Code, codeOf, messageOf } from '../../../../src/errors.ts';
import { exec, type Exec } from '../../../../src/sys/command.ts';
import type { PropertySource } from '../../../../src/zfs/zfs.ts';
import { openZfs } from '../../../../src/zfs/zfs.ts';
import { rootProperties } from '../../../../snapshotter/load.ts';
import type { SnapshotStore } from '../../../../snapshotter/store.ts';
import { realPool, skip, type RealPool } from './real-pool.ts';

const LAYER = 'default/2/layer';
const NOBODY = '65534';

suite('what ZFS itself refuses, and what it is told', { skip }, () => {
  let pool: RealPool;
  let store: SnapshotStore;
  const all = async (): Promise<string[]> =>
    (await pool.zfs.list({ root: pool.root, types: ['filesystem', 'snapshot'], properties: [] })).map(
      ({ name }) => name,
    );
  const make = (by: SnapshotStore, name: string, labels: Record<string, string> = {}) =>
    by.prepare({ name, kind: 'active', parent: LAYER, labels });

  before(async () => {
    pool = await realPool();
    store = await pool.open();
    await store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
    await store.commit({ name: LAYER, key: 'default/1/extract-1', labels: {}, parent: '' });
    await make(store, 'default/3/web');
    await store.sweep();
  });
  after(() => pool.close());

  test('one who may not change the pool is told so, by code and dataset, and nothing is half done', async () => {
    let allowed = true;
    const asNobody: Exec = (file, args, options) =>
      allowed
        ? exec(file, args, options)
        : exec('setpriv', [`--reuid=${NOBODY}`, '--clear-groups', file, ...args], options);
    const zfs = await openZfs(asNobody, undefined, { direct: false });
    const other = await pool.open({ zfs });
    const before = await all();
    allowed = false;
    const denied = (error: unknown): boolean => {
      assert.equal(codeOf(error), Code.PermissionDenied, messageOf(error));
      return messageOf(error).includes(pool.root);
    };
    await assert.rejects(make(other, 'default/4/denied'), denied);
    await assert.rejects(
      other.commit({ name: 'default/5/denied', key: 'default/3/web', labels: {}, parent: '' }),
      denied,
    );
    await assert.rejects(other.update({ name: LAYER, labels: { a: 'b' }, paths: undefined }), denied);
    await assert.rejects(other.remove('default/3/web'), denied);
    allowed = true;
    assert.deepEqual(await all(), before);
    const names = (by: SnapshotStore): string[] => [...by.list([])].map(({ name }) => name).sort();
    assert.deepEqual(names(other), names(store));
    await make(other, 'default/4/allowed');
    await other.remove('default/4/allowed');
    await other.sweep();
  });

  test('names are cut where ZFS has no room for them, told apart, and refused where nothing is left', async () => {
    const key = (at: number): string => `${'n'.repeat(76)}/${at}/${'k'.repeat(200)}-${at}`;
    for (const at of [10, 11]) await make(store, key(at));
    const places = store.datasets().filter(({ snapshot }) => snapshot?.name.startsWith('nnn') === true);
    assert.equal(new Set(places.map(({ dataset }) => dataset)).size, 2);
    for (const at of [10, 11]) await store.remove(key(at));
    await store.sweep();
    const deep = `${pool.root}/${'d'.repeat(210 - pool.root.length)}`;
    const far = await pool.open({ root: deep });
    await assert.rejects(
      far.prepare({
        name: 'some-namespace/1/some-long-container-name',
        kind: 'active',
        parent: '',
        labels: {},
      }),
      (error) =>
        codeOf(error) === Code.InvalidArgument && /too long for datasets below it/.test(messageOf(error)),
    );
    assert.deepEqual([...far.list([])], []);
    await pool.zfs.destroy(deep, { recursive: true });
  });

  test('labels that no number of properties holds are refused before anything is made', async () => {
    const before = await all();
    const labels = { long: 'x'.repeat(70_000) };
    const tooLong = (error: unknown): boolean => codeOf(error) === Code.InvalidArgument;
    await assert.rejects(make(store, 'default/6/long', labels), tooLong);
    await assert.rejects(store.update({ name: LAYER, labels, paths: undefined }), tooLong);
    assert.deepEqual(await all(), before);
    assert.deepEqual(store.stat(LAYER).labels, {});
  });

  test('each class of datasets has the defaults that are told, a container inherits what is set for its namespace', async () => {
    const { zfs, root } = pool;
    const wanted = { ...rootProperties(zfs.kind) };
    const [major = 0, minor = 0] = zfs.version.split('.').map(Number);
    // Names that a property is set by and has others for: OpenZFS 2.3 has attributes in the inode by default, and calls that `on`.
    if (zfs.kind === 'openzfs' && major >= 2) wanted['acltype'] = 'posix';
    if (zfs.kind === 'openzfs' && (major > 2 || (major === 2 && minor >= 3))) wanted['xattr'] = 'on';
    const read = async (dataset: string): Promise<Map<string, { value: string; source: PropertySource }>> => {
      const [row] = await zfs.list({
        root: dataset,
        depth: 0,
        types: ['filesystem'],
        properties: [...Object.keys(wanted), 'recordsize', 'snapdir'],
      });
      return new Map(row?.properties);
    };
    const own = await read(root);
    for (const [property, value] of Object.entries(wanted))
      assert.deepEqual(own.get(property), { value, source: 'local' }, property);
    const web = store.findContainer('default', 'web')?.dataset ?? '';
    for (const dataset of [`${root}/layers`, `${root}/containers/default`, web]) {
      const found = await read(dataset);
      for (const property of [
        'compression',
        'atime',
        ...(zfs.kind === 'openzfs' ? ['xattr', 'acltype'] : []),
      ])
        assert.deepEqual(
          found.get(property),
          { value: wanted[property], source: 'inherited' },
          `${property} of ${dataset}`,
        );
      assert.equal(found.get('recordsize')?.value, '131072');
      assert.equal(found.get('snapdir')?.value, 'hidden');
    }
    await zfs.set(`${root}/containers/default`, { recordsize: '16384', quota: String(64 << 20) });
    await make(store, 'default/7/db');
    const db = store.findContainer('default', 'db')?.dataset ?? '';
    assert.deepEqual((await read(db)).get('recordsize'), { value: '16384', source: 'inherited' });
    await zfs.inherit(`${root}/containers/default`, 'recordsize');
    await zfs.set(`${root}/containers/default`, { quota: 'none' });
    await store.remove('default/7/db');
    await store.sweep();
  });

  test('no container sees the snapshots of its disk, even where somebody makes them visible', async () => {
    const [mount] = await store.mounts('default/3/web');
    const dataset = store.findContainer('default', 'web')?.dataset ?? '';
    await pool.zfs.snapshot([`${dataset}@by-hand`]);
    for (const snapdir of ['hidden', 'visible']) {
      await pool.zfs.set(dataset, { snapdir });
      const source = mount?.source ?? '';
      assert.ok(!(await readdir(source)).includes('.zfs'), snapdir);
      await assert.rejects(readdir(`${source}/.zfs`), /ENOENT/);
    }
    await pool.zfs.destroy(`${dataset}@by-hand`);
  });
});
