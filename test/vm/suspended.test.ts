// A pool that OpenZFS's module has suspended, as it does when a device refuses to be written: on zfs-fuse there is no way back
// from that (test/system/once/snapshotter/trouble.test.ts has a disk that does not answer there).
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { Code, codeOf, detailsOf, messageOf } from '../../src/errors.ts';
import { mount, unmount } from '../../src/sys/mount.ts';
import type { SnapshotStore } from '../../snapshotter/store.ts';
import { poolOn, type OwnPool } from '../system/once/snapshotter/real-pool.ts';
import { until } from '../system/support/stack.ts';

const LAYER = 'default/2/layer';
const MIB = 1 << 20;
const PLACE = 96 * MIB;

/** A file of 192 MiB in a place with room for half of it: it refuses writes once something else takes that room. */
class NarrowDisk {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async make(): Promise<NarrowDisk> {
    const folder = await mkdtemp(join(tmpdir(), 'stasis-narrow-'));
    await mount({ type: 'tmpfs', source: 'tmpfs', target: folder, options: [`size=${PLACE}`] });
    await writeFile(`${folder}/device`, '');
    await truncate(`${folder}/device`, 192 * MIB);
    return new NarrowDisk(folder);
  }

  async fail(): Promise<void> {
    await writeFile(`${this.folder}/ballast`, Buffer.alloc(PLACE)).catch((error: unknown) =>
      assert.match(messageOf(error), /ENOSPC/),
    );
  }

  async mend(): Promise<void> {
    await rm(`${this.folder}/ballast`, { force: true });
  }

  async remove(): Promise<void> {
    await unmount(this.folder);
    await rm(this.folder, { recursive: true });
  }
}

const zpool = (...args: string[]): string => execFileSync('zpool', args, { encoding: 'utf8' });

async function names(pool: OwnPool): Promise<string[]> {
  const rows = await pool.zfs.list({ root: pool.root, types: ['filesystem', 'snapshot'], properties: [] });
  return rows.map(({ name }) => name).sort();
}

const listed = (store: SnapshotStore): string[] => [...store.list([])].map(({ name }) => name).sort();

suite("a pool that OpenZFS's module has suspended", () => {
  for (const failmode of ['wait', 'continue']) {
    test(`failmode=${failmode}: each call says so by dataset and cause, nothing is half done, and after zpool clear all goes on`, async () => {
      const disk = await NarrowDisk.make();
      const pool = await poolOn(`${disk.folder}/device`);
      const name = pool.root.slice(0, pool.root.indexOf('/'));
      try {
        zpool('set', `failmode=${failmode}`, name);
        const store = await pool.open();
        const extract = 'default/1/extract-1';
        const [layer] = await store.prepare({ name: extract, kind: 'active', parent: '', labels: {} });
        await writeFile(`${layer?.source ?? ''}/file`, 'of the layer');
        await store.commit({ name: LAYER, key: extract, labels: {}, parent: '' });
        const active = { kind: 'active', parent: LAYER, labels: {} } as const;
        const [web] = await store.prepare({ ...active, name: 'default/3/web' });
        await store.prepare({ ...active, name: 'default/4/job' });
        await store.prepare({ ...active, name: 'default/5/late' });
        const before = { datasets: await names(pool), listed: listed(store) };

        await disk.fail();
        const writing = spawn(
          'dd',
          ['if=/dev/urandom', `of=${web?.source ?? ''}/f`, 'bs=64k', 'count=32', 'conv=fsync'],
          {
            stdio: 'ignore',
          },
        );
        const ended = new Promise((resolve) => writing.once('exit', resolve));
        await until('the pool to be suspended', () =>
          zpool('list', '-H', '-o', 'health', name).trim() === 'SUSPENDED' ? true : undefined,
        );

        const suspended = (error: unknown): boolean => {
          assert.equal(codeOf(error), Code.Unavailable, messageOf(error));
          assert.match(
            messageOf(error),
            new RegExp(`${pool.root}.*: (pool I/O is currently suspended|I/O error)$`),
          );
          assert.match(detailsOf(error)?.remedy ?? '', /zpool clear/);
          return true;
        };
        const calls: Readonly<Record<string, () => Promise<unknown>>> = {
          prepare: () => store.prepare({ ...active, name: 'default/10/more' }),
          view: () => store.prepare({ ...active, kind: 'view', name: 'default/11/view' }),
          'prepare without a parent': () =>
            store.prepare({ ...active, parent: '', name: 'default/12/extract-2' }),
          update: () => store.update({ name: LAYER, labels: { a: 'b' }, paths: undefined }),
          remove: () => store.remove('default/4/job'),
          commit: () =>
            store.commit({ name: 'default/14/late', key: 'default/5/late', labels: {}, parent: '' }),
        };
        for (const [what, call] of Object.entries(calls)) await assert.rejects(call, suspended, what);
        assert.deepEqual(listed(store), before.listed, 'what is known needs no pool');
        assert.equal(store.stat(LAYER).kind, 'committed');
        assert.equal((await store.mounts('default/3/web')).length, 1);
        await assert.rejects(pool.open(), suspended, 'a stasisd that starts says it too');

        await disk.mend();
        zpool('clear', name);
        await ended;
        assert.equal(zpool('list', '-H', '-o', 'health', name).trim(), 'ONLINE');
        assert.deepEqual(await names(pool), before.datasets);
        assert.deepEqual(listed(await pool.open()), before.listed, 'the pool says the same');
        for (const call of Object.values(calls)) await call();
        await store.commit({ name: 'default/13/web', key: 'default/3/web', labels: {}, parent: '' });
        const [view] = await store.mounts('default/11/view');
        assert.equal(await readFile(`${view?.source ?? ''}/file`, 'utf8'), 'of the layer');
        assert.deepEqual((await store.sweep()).failed, []);
        const after = ['10/more', '11/view', '12/extract-2', '13/web', '14/late', '2/layer'].map(
          (each) => `default/${each}`,
        );
        assert.deepEqual(listed(store), after);
        assert.deepEqual(listed(await pool.open()), after);
      } finally {
        await disk.mend();
        zpool('clear', name);
        await pool.close();
        await disk.remove();
      }
    });
  }
});
