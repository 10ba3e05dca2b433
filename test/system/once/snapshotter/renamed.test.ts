import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite, test } from 'node:test';
import type { Snapshot } from '../../../../snapshotter/snapshot.ts';
import type { SnapshotStore } from '../../../../snapshotter/store.ts';
import { exec } from '../../../../src/sys/command.ts';
import { ZfsMounter } from '../../../../src/zfs/mounter.ts';
import { poolOn, realPool, skip } from './real-pool.ts';

const LAYER = 'default/2/layer';
const WEB = 'default/3/web';
const LONG = 'x'.repeat(3000);

async function sourceOf(store: SnapshotStore, name: string): Promise<string> {
  return (await store.mounts(name))[0]?.source ?? '';
}

/** What a client sees: everything but the dataset's own name, which begins with the pool's. */
function visible(store: SnapshotStore): Omit<Snapshot, 'dataset'>[] {
  const all = [...store.list([])].map((snapshot) => ({ ...snapshot, dataset: '' }));
  return all.sort((a, b) => (a.name < b.name ? -1 : 1));
}

suite('a pool under another name', { skip }, () => {
  test('has every snapshot, file, checkpoint and removed disk, without a repair', async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'stasis-device-'));
    await writeFile(`${folder}/device`, '');
    await truncate(`${folder}/device`, 256 << 20);
    let pool = await poolOn(`${folder}/device`);
    t.after(async () => {
      await pool.close();
      await rm(folder, { recursive: true });
    });
    const before = await pool.open({ trashGrace: 3600 });
    const [making] = await before.prepare({
      name: 'default/1/extract-1',
      kind: 'active',
      parent: '',
      labels: {},
    });
    await writeFile(`${making?.source ?? ''}/layer`, 'of the layer');
    await before.commit({ name: LAYER, key: 'default/1/extract-1', labels: { long: LONG }, parent: '' });
    for (const name of [WEB, 'default/4/job'])
      await before.prepare({ name, kind: 'active', parent: LAYER, labels: { of: name } });
    await before.prepare({ name: 'default/5/view', kind: 'view', parent: LAYER, labels: {} });
    await writeFile(`${await sourceOf(before, WEB)}/n`, 'at the checkpoint');
    const dataset = before.findContainer('default', 'web')?.dataset ?? '';
    await pool.zfs.snapshot([`${dataset}@one`], { properties: { 'stasis:checkpoint': 'id-one' } });
    before.noteCheckpoint(dataset, 'one', 'id-one');
    await writeFile(`${await sourceOf(before, WEB)}/n`, 'now');
    await before.remove('default/4/job');
    const seen = visible(before);

    const root = pool.root;
    pool = await pool.reimport();
    assert.notEqual(pool.root, root);
    const store = await pool.open({ trashGrace: 3600 });
    assert.deepEqual(visible(store), seen);
    const web = await sourceOf(store, WEB);
    assert.equal(await readFile(`${web}/n`, 'utf8'), 'now');
    assert.equal(await readFile(`${web}/layer`, 'utf8'), 'of the layer');
    const view = await store.mounts('default/5/view');
    assert.deepEqual(view[0]?.options, ['ro', 'rbind']);
    assert.equal(await readFile(`${view[0]?.source ?? ''}/layer`, 'utf8'), 'of the layer');
    assert.ok((await store.usage(LAYER)).inodes > 0n);

    const labels = { 'containerd.io/snapshot/stasis.checkpoint': 'id-one' };
    const [clone] = await store.prepare({ name: 'default/6/clone', kind: 'active', parent: LAYER, labels });
    assert.equal(await readFile(`${clone?.source ?? ''}/n`, 'utf8'), 'at the checkpoint');
    await store.prepare({ name: 'default/7/new', kind: 'active', parent: LAYER, labels: {} });
    await store.update({ name: LAYER, labels: { short: 'y' }, paths: ['labels.short'] });
    assert.deepEqual(store.stat(LAYER).labels, { long: LONG, short: 'y' });
    assert.deepEqual((await store.sweep()).failed, []);
    assert.ok(
      store
        .datasets()
        .some(({ dataset, inTrash, state }) => dataset.includes('job') && (inTrash || state === 'removed')),
      'the removed disk has its grace time',
    );
    assert.ok(store.datasets().every(({ dataset }) => dataset.startsWith(pool.root)));
    for (const { name } of visible(store).reverse()) await store.remove(name);
    assert.deepEqual((await store.sweep()).failed, []);
  });

  test('moved to other disks by zfs send, root and all, is as it was, and what is received into it later is not in use', async (t) => {
    const pool = await realPool();
    const stream = `${pool.folder}/stream`;
    const mounters = new Map<string, ZfsMounter>();
    t.after(async () => {
      for (const [root, mounter] of mounters) await mounter.unmount(root);
      await pool.close();
    });
    const at = `${pool.root}/at`;
    const open = (root: string): Promise<SnapshotStore> => {
      const mounter =
        mounters.get(root) ?? new ZfsMounter(pool.zfs, root, `${pool.folder}/${root.split('/').at(-1)}`);
      mounters.set(root, mounter);
      return pool.open({ root, mounter });
    };
    const send = async (from: string, to: string): Promise<void> => {
      const script = 'zfs snapshot -r "$1@$4" && zfs send -R "$1@$4" >"$3" && zfs receive -u "$2" <"$3"';
      const sent = await exec('sh', ['-c', script, 'sh', from, to, stream, `s${sends++}`]);
      assert.equal(sent.exitCode, 0, sent.stderr);
    };
    let sends = 0;
    await pool.zfs.create(pool.root, { properties: { mountpoint: 'none', canmount: 'off' } });
    const before = await open(at);
    await before.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
    await before.commit({ name: LAYER, key: 'default/1/extract-1', labels: { long: LONG }, parent: '' });
    await before.prepare({ name: WEB, kind: 'active', parent: LAYER, labels: {} });
    await writeFile(`${await sourceOf(before, WEB)}/n`, 'now');
    await pool.zfs.set(at, { 'stasis:format': '1' }); // as a stasisd does that claims it
    const moved = `${pool.root}/moved`;
    await send(at, moved);
    for (const start of ['first', 'second']) {
      const store = await open(moved);
      assert.deepEqual(visible(store), visible(before), start);
      assert.equal(await readFile(`${await sourceOf(store, WEB)}/n`, 'utf8'), 'now');
      await pool.zfs.set(moved, { 'stasis:format': '1' });
    }
    await sleep(1100); // times of creation are whole seconds
    const copy = `${moved}/containers/default/copy`;
    await send(`${moved}/containers/default/web`, copy);
    const store = await open(moved);
    assert.deepEqual(visible(store), visible(before));
    assert.deepEqual(
      store.strangers.foreign().map(({ dataset }) => dataset),
      [copy],
    );
    assert.equal(store.findContainer('default', 'web')?.dataset, `${moved}/containers/default/web`);
  });
});
