import assert from 'node:assert/strict';
import { mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { exec } from '../../../../src/sys/command.ts';
import { Code, codeOf, messageOf } from '../../../../src/errors.ts';
import type { SnapshotStore } from '../../../../snapshotter/store.ts';
import { slowness } from '../../support/slowness.ts';
import { poolOn, skip, type RealPool } from './real-pool.ts';
import { StallingDisk } from '../../support/stalling-disk.ts';

const LAYER = 'default/2/layer';
const MIB = 1 << 20;

async function withLayer(pool: RealPool): Promise<SnapshotStore> {
  const store = await pool.open();
  await store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
  await store.commit({ name: LAYER, key: 'default/1/extract-1', labels: {}, parent: '' });
  return store;
}

/** Writes what cannot be compressed until the pool has no more room. */
async function fill(path: string): Promise<void> {
  const file = await open(path, 'w');
  const block = Buffer.alloc(1 << 16);
  try {
    for (let at = 0; at < 1 << 14; at++) {
      crypto.getRandomValues(block);
      await file.write(block);
      if (at % 16 === 0) await file.sync();
    }
  } finally {
    await file.close();
  }
}

/** The names below the root, those of the folders that hold others apart. */
const made = async (pool: RealPool): Promise<string[]> =>
  (await pool.zfs.list({ root: pool.root, types: ['filesystem', 'snapshot'], properties: [] }))
    .map(({ name }) => name.slice(pool.root.length + 1))
    .filter((name) => /^[^/]+\/([^/]+\/)?[^/]+$/.test(name))
    .sort();

suite('a pool in trouble', { skip }, () => {
  test('a full pool refuses by name and cause, leaves nothing half made, and takes Remove, without a restart', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'stasis-device-'));
    await writeFile(`${folder}/device`, '');
    await truncate(`${folder}/device`, 128 * MIB);
    const pool = await poolOn(`${folder}/device`);
    try {
      const store = await withLayer(pool);
      const [hog] = await store.prepare({ name: 'default/3/hog', kind: 'active', parent: LAYER, labels: {} });
      const kept = await store.prepare({ name: 'default/4/kept', kind: 'active', parent: LAYER, labels: {} });
      const dataset = store.findContainer('default', 'kept')?.dataset ?? '';
      await pool.zfs.snapshot([`${dataset}@one`], { properties: { 'stasis:checkpoint': 'id-one' } });
      store.noteCheckpoint(dataset, 'one', 'id-one');
      assert.equal(kept.length, 1);
      await assert.rejects(fill(`${hog?.source ?? ''}/f`), /ENOSPC|EDQUOT|-122/);
      const before = await made(pool);

      // The kernel module keeps more room for itself: there this goes on for a while.
      const more = 'default/10/more';
      await assert.rejects(
        async () => {
          for (let at = 0; at < 2000; at++) {
            await store.prepare({ name: more, kind: 'active', parent: LAYER, labels: {} });
            await store.remove(more);
          }
        },
        (error) => {
          assert.equal(codeOf(error), Code.ResourceExhausted, messageOf(error));
          assert.match(messageOf(error), new RegExp(`${pool.root}/containers/default/more.*: out of space`));
          return true;
        },
      );
      assert.equal(store.lookup(more), undefined);
      assert.deepEqual(await made(pool), before, 'nothing is left of what was refused');

      await store.remove('default/4/kept'); // its checkpoint stays, so the mark has to wait
      assert.equal(store.lookup('default/4/kept'), undefined);
      await store.remove('default/3/hog');
      assert.deepEqual((await store.sweep()).failed, []);
      await store.prepare({ name: 'default/5/web', kind: 'active', parent: LAYER, labels: {} });
      const [web] = await store.mounts('default/5/web');
      await writeFile(`${web?.source ?? ''}/f`, Buffer.alloc(MIB));

      const again = await pool.open();
      const listed = [...again.list([])].map(({ name }) => name).sort();
      assert.deepEqual(listed, [LAYER, 'default/5/web'], 'the pool says the same');
      assert.ok((await made(pool)).includes('containers/default/kept@one'), 'the checkpoint is there');
    } finally {
      await pool.close();
      await rm(folder, { recursive: true });
    }
  });

  test('a pool whose device does not answer says so at the deadline, and goes on when it does, without a restart', async () => {
    const disk = await StallingDisk.make();
    const pool = await poolOn(disk.device, { timeoutMs: slowness * 3000 });
    try {
      const store = await withLayer(pool);
      const [hog] = await store.prepare({ name: 'default/3/hog', kind: 'active', parent: LAYER, labels: {} });
      await store.prepare({ name: 'default/4/job', kind: 'active', parent: LAYER, labels: {} });
      const writing = exec('dd', [
        'if=/dev/urandom',
        `of=${hog?.source ?? ''}/f`,
        'bs=1M',
        'count=20',
        'conv=fsync',
      ]);
      await disk.stall();
      const unavailable = (error: unknown): boolean => {
        const code = codeOf(error);
        assert.ok(code === Code.DeadlineExceeded || code === Code.Unavailable, messageOf(error));
        assert.match(messageOf(error), new RegExp(pool.root));
        return true;
      };
      await assert.rejects(pool.zfs.set(pool.root, { 'stasis:probe': '1' }), unavailable);
      const more = { name: 'default/10/more', kind: 'active', parent: LAYER, labels: {} } as const;
      await assert.rejects(store.prepare(more), unavailable);
      await assert.rejects(store.remove('default/4/job'), unavailable);
      assert.equal(store.stat(LAYER).kind, 'committed', 'what is known needs no pool');
      assert.equal((await store.mounts('default/3/hog')).length, 1);

      await disk.go();
      const { exitCode, stderr } = await writing;
      assert.equal(exitCode, 0, stderr);

      await store.prepare({ name: 'default/5/web', kind: 'active', parent: LAYER, labels: {} });
      if (store.lookup('default/4/job') !== undefined) await store.remove('default/4/job');
      for (const { name } of [...store.list([])]) if (name.endsWith('/more')) await store.remove(name);
      assert.deepEqual((await store.sweep()).failed, []);
      const left = [LAYER, 'default/3/hog', 'default/5/web'];
      assert.deepEqual([...store.list([])].map(({ name }) => name).sort(), left);
      assert.deepEqual([...(await pool.open()).list([])].map(({ name }) => name).sort(), left);
      assert.deepEqual(await made(pool), [
        'containers/default',
        'containers/default/hog',
        'containers/default/web',
        'layers/extract-1',
        'layers/extract-1@layer',
      ]);
    } finally {
      await disk.go();
      await pool.close();
      await disk.remove();
    }
  });
});
