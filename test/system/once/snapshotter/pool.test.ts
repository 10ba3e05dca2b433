import assert from 'node:assert/strict';
import { mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { AlreadyExists, NotFound } from '../../../../src/errors.ts';
import { mount, unmount } from '../../../../src/sys/mount.ts';
import { Busy, HasChildren, HasClones, ParentMissing } from '../../../../src/zfs/errors.ts';
import { ROOTFS } from '../../../../snapshotter/snapshot.ts';
import type { SnapshotStore } from '../../../../snapshotter/store.ts';
import { realPool, skip, type RealPool } from './real-pool.ts';

suite('ZFS itself answers as the door expects', { skip }, () => {
  let pool: RealPool;
  const name = (leaf: string): string => `${pool.root}/${leaf}`;

  before(async () => {
    pool = await realPool();
    await pool.open();
  });
  after(() => pool.close());

  test('each refusal of the zfs command has its own error', async () => {
    const { zfs } = pool;
    await zfs.create(name('a'));
    await zfs.snapshot([`${name('a')}@s`]);
    await zfs.clone(`${name('a')}@s`, name('b'));
    await assert.rejects(zfs.create(name('a')), AlreadyExists);
    await assert.rejects(zfs.snapshot([`${name('a')}@s`]), AlreadyExists);
    await assert.rejects(zfs.clone(`${name('a')}@s`, name('b')), AlreadyExists);
    await assert.rejects(zfs.create(name('no/child')), ParentMissing);
    await assert.rejects(zfs.clone(`${name('a')}@none`, name('c')), NotFound);
    await assert.rejects(zfs.snapshot([`${name('none')}@s`]), NotFound);
    await assert.rejects(zfs.destroy(name('none')), NotFound);
    await assert.rejects(zfs.set(name('none'), { 'stasis:x': 'y' }), NotFound);
    await assert.rejects(zfs.rename(name('none'), name('c')), NotFound);
    await assert.rejects(zfs.rename(name('b'), name('a')), AlreadyExists);
    await assert.rejects(zfs.destroy(`${name('a')}@s`), HasClones);
    await assert.rejects(zfs.destroy(name('a'), { recursive: true }), HasClones);
    await zfs.destroy(name('b'));
    await assert.rejects(zfs.destroy(name('a')), HasChildren);
    await assert.rejects(zfs.poolStatus('nosuchpool'), NotFound);
    await zfs.destroyIdempotent(name('none'));
  });

  test('a set of snapshots is made whole or not at all', async () => {
    const { zfs } = pool;
    await zfs.create(name('x'));
    await assert.rejects(zfs.snapshot([`${name('x')}@s`, `${name('none')}@s`]), NotFound);
    const rows = await zfs.list({ root: name('x'), types: ['snapshot'], properties: [] });
    assert.deepEqual(rows, []);
  });

  test('every printable character comes back from a property, and inherited ones are told apart', async () => {
    const value = Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at)).join('');
    const { zfs } = pool;
    await zfs.create(name('p'), { properties: { 'stasis:test': value } });
    await zfs.create(name('p/child'));
    const rows = await zfs.list({ root: name('p'), types: ['filesystem'], properties: ['stasis:test'] });
    assert.deepEqual(
      rows.map((row) => row.properties.get('stasis:test')),
      [
        { value, source: 'local' },
        { value, source: 'inherited' },
      ],
    );
    const own = await zfs.list({
      root: name('p/child'),
      depth: 0,
      types: ['filesystem'],
      properties: ['stasis:test'],
      ownOnly: true,
    });
    assert.deepEqual(
      own.map((row) => row.properties.size),
      [0],
    );
  });
});

suite('the snapshotter on a real pool', { skip }, () => {
  let pool: RealPool;
  const LAYER = 'default/2/layer';

  before(async () => {
    pool = await realPool();
    const store = await pool.open();
    await store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
    await store.commit({ name: LAYER, key: 'default/1/extract-1', labels: {}, parent: '' });
    await store.sweep();
  });
  after(() => pool.close());

  test('each write is one process at most, mounting included, and reads are none', async () => {
    const store = await pool.open();
    await store.prepare({ name: 'default/3/first', kind: 'active', parent: LAYER, labels: {} });
    const cost = async (work: () => unknown): Promise<string[]> => {
      pool.commands.length = 0;
      await work();
      return pool.commands.map(([verb]) => verb ?? '');
    };
    const name = 'default/4/web';
    const prepare = (): unknown => store.prepare({ name, kind: 'active', parent: LAYER, labels: {} });
    assert.deepEqual(await cost(prepare), pool.zfs.kind === 'openzfs' ? ['clone'] : []); // zfs-fuse's daemon is asked itself
    assert.deepEqual(await cost(() => store.mounts(name)), []);
    assert.deepEqual(await cost(() => store.usage(name)), []);
    assert.deepEqual(await cost(() => store.update({ name, labels: { a: 'b' }, paths: undefined })), ['set']);
    assert.deepEqual(await cost(() => store.remove(name)), [pool.zfs.kind === 'openzfs' ? 'rename' : 'set']);
    await store.remove('default/3/first');
    await store.sweep();
  });

  test('a mount that went is made again when it is asked for, and the files are there', async () => {
    const store = await pool.open();
    const [made] = await store.prepare({ name: 'default/5/web', kind: 'active', parent: LAYER, labels: {} });
    await writeFile(`${made?.source ?? ''}/f`, 'here');
    // Just after a file was closed zfs-fuse may still be busy with it: Busy says to try again, as the sweeps do.
    const dataset = store.findContainer('default', 'web')?.dataset ?? '';
    for (const deadline = Date.now() + 10_000; ; await sleep(20)) {
      try {
        await pool.mounter.unmount(dataset);
        break;
      } catch (error) {
        if (!(error instanceof Busy) || Date.now() > deadline) throw error;
      }
    }
    const [again] = await store.mounts('default/5/web');
    assert.equal(await readFile(`${again?.source ?? ''}/f`, 'utf8'), 'here');
    await store.remove('default/5/web');
  });

  test('the folder of the files is made anew where a crash left it out', async () => {
    const store = await pool.open();
    const dataset = `${pool.root}/layers`;
    const properties = {
      'stasis:key': 'default/6/half',
      'stasis:kind': 'active',
      'stasis:owner': 'test',
      'stasis:created': '1.000000000',
      'stasis:labels': '1.000000000 {}',
    };
    await pool.zfs.create(`${dataset}/half`, {
      properties: { ...pool.mounter.birthProperties(`${dataset}/half`), ...properties },
    });
    const again = await pool.open();
    const [made] = await again.mounts('default/6/half');
    assert.ok(made?.source.endsWith(`/${ROOTFS}`));
    await again.remove('default/6/half');
    await again.sweep();
    assert.equal(store.lookup('default/6/half'), undefined);
  });

  test('Remove of a container with an open file answers at once, and the dataset goes when the file is closed', async () => {
    const store = await pool.open();
    const name = 'default/7/busy';
    const [made] = await store.prepare({ name, kind: 'active', parent: LAYER, labels: {} });
    const file = await open(`${made?.source ?? ''}/f`, 'w');
    await store.remove(name);
    assert.equal(store.lookup(name), undefined);
    await store.prepare({ name, kind: 'active', parent: LAYER, labels: {} });
    await file.close();
    await store.remove(name);
    const { failed } = await store.sweep();
    assert.deepEqual(failed, []);
    const rows = await pool.zfs.list({ root: pool.root, types: ['filesystem'], properties: [] });
    assert.deepEqual(
      rows.filter((row) => /busy/.test(row.name)),
      [],
    );
  });

  test('a removed container that is still mounted elsewhere keeps that mount, and goes after it', async () => {
    const store = await pool.open();
    const name = 'default/7/used';
    const [made] = await store.prepare({ name, kind: 'active', parent: LAYER, labels: {} });
    const target = `${pool.folder}/bundle`;
    await mkdir(target);
    await mount({ type: 'bind', source: made?.source ?? '', target, options: ['rbind', 'rw'] });
    try {
      await writeFile(`${target}/f`, 'still here');
      await store.remove(name);
      const { failed } = await store.sweep();
      assert.equal(failed.length, 1);
      assert.equal(await readFile(`${target}/f`, 'utf8'), 'still here');
    } finally {
      await unmount(target);
    }
    assert.deepEqual((await store.sweep()).failed, []);
  });

  test("a rewind brings the checkpoint's files back and leaves later checkpoints alone", async () => {
    const store = await pool.open();
    const name = 'default/8/db';
    const path = async (): Promise<string> => `${(await store.mounts(name))[0]?.source ?? ''}/n`;
    await store.prepare({ name, kind: 'active', parent: LAYER, labels: {} });
    const dataset = store.findContainer('default', 'db')?.dataset ?? '';
    for (const checkpoint of ['one', 'two']) {
      await writeFile(await path(), checkpoint);
      await pool.zfs.snapshot([`${dataset}@${checkpoint}`], {
        properties: { 'stasis:checkpoint': checkpoint },
      });
      store.noteCheckpoint(dataset, checkpoint, checkpoint);
    }
    for (const checkpoint of ['one', 'two']) {
      const rewound = await store.rewind(name, `${dataset}@${checkpoint}`);
      assert.equal(await readFile(await path(), 'utf8'), checkpoint);
      await rewound.done();
    }
    assert.equal((await pool.open()).findContainer('default', 'db')?.generation, 3);
  });

  test('disks that only clones of removed checkpoints stand on are given up under an open file, and a bind mount', async () => {
    const store = await pool.open();
    const name = 'default/10/loop';
    const path = async (): Promise<string> => (await store.mounts(name))[0]?.source ?? '';
    await store.prepare({ name, kind: 'active', parent: LAYER, labels: {} });
    await writeFile(`${await path()}/kept`, 'kept');
    for (const checkpoint of ['l', 'm', 'n']) {
      const { dataset = '' } = store.findContainer('default', 'loop') ?? {};
      await pool.zfs.create(`${dataset}/memory`, {
        properties: pool.mounter.birthProperties(`${dataset}/memory`),
      });
      await pool.zfs.snapshot([`${dataset}@${checkpoint}`], {
        properties: { 'stasis:checkpoint': checkpoint },
      });
      store.noteCheckpoint(dataset, checkpoint, checkpoint);
      await (await store.rewind(name, `${dataset}@${checkpoint}`)).done();
      await pool.zfs.destroy(`${dataset}@${checkpoint}`, { defer: true });
      await store.forgetCheckpoint(dataset, checkpoint);
    }
    const dataset = store.findContainer('default', 'loop')?.dataset ?? '';
    const target = `${pool.folder}/loop`;
    await mkdir(target);
    await mount({ type: 'bind', source: await path(), target, options: ['rbind', 'rw'] });
    const file = await open(`${target}/f`, 'w');
    try {
      await file.write('before, ');
      assert.deepEqual((await store.sweep()).failed, []);
      await file.write('after');
      await file.sync();
      assert.equal(await readFile(`${target}/f`, 'utf8'), 'before, after');
      assert.equal(await readFile(`${target}/kept`, 'utf8'), 'kept');
    } finally {
      await file.close();
      await unmount(target);
    }
    const root = dataset.slice(0, dataset.lastIndexOf('/'));
    const rows = await pool.zfs.list({ root, types: ['filesystem', 'snapshot'], properties: ['origin'] });
    const left = rows.filter((row) => row.name.startsWith(`${root}/loop`));
    assert.deepEqual(
      left.map((row) => row.name),
      [dataset],
    );
    assert.match(left[0]?.properties.get('origin')?.value ?? '', /\/layers\/.*@layer$/);
    assert.deepEqual((await pool.open()).findContainer('default', 'loop')?.dataset, dataset);
    await store.remove(name);
  });

  test('the usage of layers is the same after a restart, whether or not a sweep came before it', async () => {
    const store = await pool.open();
    const layer = async (at: number, parent: string, files: number): Promise<string> => {
      const key = `default/${at}/extract-${at} usage-${at}`;
      const [made] = await store.prepare({ name: key, kind: 'active', parent, labels: {} });
      for (let file = 0; file < files; file++) await writeFile(`${made?.source ?? ''}/${at}-${file}`, 'x');
      await store.commit({ name: `default/${at}/usage`, key, labels: {}, parent: '' });
      return `default/${at}/usage`;
    };
    const names = [await layer(20, '', 40)];
    names.push(await layer(21, names[0] ?? '', 25));
    await store.prepare({ name: 'default/22/usage', kind: 'active', parent: names[1] ?? '', labels: {} });
    const container = 'default/22/usage';
    const inodes = async (from: SnapshotStore): Promise<number[]> => {
      const numbers = [];
      for (const name of [...names, container]) numbers.push(Number((await from.usage(name)).inodes));
      return numbers;
    };
    const before = await inodes(store);
    // zfs-fuse counts a file's attributes as one more.
    assert.ok([25, 50].includes(before[1] ?? 0), `${before[1]} inodes for 25 files`);
    assert.equal(before[2], 0, 'a container that wrote nothing has no files of its own');
    assert.ok((before[0] ?? 0) >= 41, '40 files in a folder');
    assert.deepEqual(await inodes(await pool.open()), before, 'counted again');
    await store.sweep();
    const again = await pool.open();
    pool.commands.length = 0;
    assert.deepEqual(await inodes(again), before);
    assert.deepEqual(pool.commands, [], 'read from the pool at start');
    for (const name of [container, ...names.reverse()]) await store.remove(name);
    await store.sweep();
  });

  test('a size limit is kept by the file system, by one that was rewound, and by a clone', async () => {
    const store = await pool.open();
    const name = 'default/9/small';
    const labels = { 'containerd.io/snapshot/max-size': String(8 << 20) };
    const block = Buffer.alloc(1 << 20);
    const assertLimited = async (files = ''): Promise<void> => {
      const file = await open(`${files}/f`, 'a');
      await assert.rejects(async () => {
        for (let at = 0; at < 64; at++) {
          for (let filled = 0; filled < block.length; filled += 65536)
            crypto.getRandomValues(block.subarray(filled, filled + 65536));
          await file.write(block);
          await file.sync();
        }
      }, /-122|EDQUOT|ENOSPC/);
      await file.close();
    };
    const [made] = await store.prepare({ name, kind: 'active', parent: LAYER, labels });
    const dataset = store.findContainer('default', 'small')?.dataset ?? '';
    for (const checkpoint of ['empty', 'full']) {
      if (checkpoint === 'full') await assertLimited(made?.source);
      await pool.zfs.snapshot([`${dataset}@${checkpoint}`], {
        properties: { 'stasis:checkpoint': `small-${checkpoint}` },
      });
      store.noteCheckpoint(dataset, checkpoint, `small-${checkpoint}`);
    }
    for (const checkpoint of ['empty', 'full']) {
      const rewound = await store.rewind(name, `${dataset}@${checkpoint}`);
      await assertLimited(rewound.rootfs);
      await rewound.done();
    }
    const from = { 'containerd.io/snapshot/stasis.checkpoint': 'small-empty' };
    const clone = { name: 'default/11/small-copy', kind: 'active', parent: LAYER, labels: from } as const;
    await assertLimited((await store.prepare(clone))[0]?.source);
    for (const each of [clone.name, name]) await store.remove(each);
  });
});
