// What only OpenZFS's kernel module can show: how it is told from zfs-fuse, how it is mounted, and what its
// snapshots hold. test/system/once/snapshotter runs on both.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chown, mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { ROOTFS } from '../../snapshotter/snapshot.ts';
import { SnapshotStore } from '../../snapshotter/store.ts';
import { exec, type Exec } from '../../src/sys/command.ts';
import { mount, unmount } from '../../src/sys/mount.ts';
import { mountAsAsked } from '../../src/sys/mount-mapped.ts';
import { syncfs } from '../../src/sys/syncfs.ts';
import { readMountTable } from '../../src/sys/mount-table.ts';
import { mapsIds } from '../../src/zfs/abilities.ts';
import { ZfsMounter } from '../../src/zfs/mounter.ts';
import { openZfs, type Zfs } from '../../src/zfs/zfs.ts';
import { MappedFile } from './mapped-file.ts';

const LAYER = 'default/2/layer';
const web = { name: 'default/3/web', kind: 'active', parent: LAYER, labels: {} } as const;
const zpool = (...args: string[]): void => void execFileSync('zpool', args, { stdio: 'pipe' });

suite("OpenZFS's kernel module", () => {
  const commands: string[][] = [];
  const recording: Exec = (file, args, options) => {
    commands.push([...args]);
    return exec(file, args, options);
  };
  let folder: string;
  let pool = `module-${process.pid}`;
  let zfs: Zfs;
  let store: SnapshotStore;

  /** As a stasisd that starts. */
  async function open(): Promise<SnapshotStore> {
    zfs = await openZfs(recording);
    const root = `${pool}/stasis`;
    const opened = new SnapshotStore({
      zfs,
      mounter: new ZfsMounter(zfs, root, `${folder}/run/mnt`),
      root,
      owner: 'test',
      trashGrace: 0,
    });
    await opened.load();
    return opened;
  }

  const rootfs = async (name: string): Promise<string> => (await store.mounts(name))[0]?.source ?? '';
  const dataset = (): string => store.findContainer('default', 'web')?.dataset ?? '';

  /** All that a reboot takes: mounts, and the pool's import. */
  async function shutDown(): Promise<void> {
    for (const { target } of (await readMountTable()).filter(({ source }) => source.startsWith(`${pool}/`)))
      await unmount(target);
    await rm(`${folder}/run`, { recursive: true });
    zpool('export', pool);
  }

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'stasis-module-'));
    await writeFile(`${folder}/pool.img`, '');
    await truncate(`${folder}/pool.img`, 2 ** 30);
    zpool('create', '-o', 'cachefile=none', '-O', 'mountpoint=none', pool, `${folder}/pool.img`);
    store = await open();
    await store.prepare({ name: 'default/1/extract', kind: 'active', parent: '', labels: {} });
    await writeFile(join(await rootfs('default/1/extract'), 'layer'), 'of the layer');
    await store.commit({ name: LAYER, key: 'default/1/extract', labels: {}, parent: '' });
    await store.prepare(web);
  });
  after(async () => {
    for (const { target } of (await readMountTable()).filter(({ source }) => source.startsWith(`${pool}/`)))
      await unmount(target, { detach: true });
    zpool('destroy', '-f', pool);
    await rm(folder, { recursive: true });
  });

  test('is told from zfs-fuse, with its version', () => {
    assert.equal(zfs.kind, 'openzfs');
    assert.match(zfs.version, /^\d+\.\d+\.\d+/);
  });

  test('is mounted from mountpoint=legacy by mount(2), without a process', async () => {
    await unmount(dirname(await rootfs(web.name)));
    commands.length = 0;
    const source = await rootfs(web.name);
    assert.deepEqual(commands, []);
    const entry = (await readMountTable()).find(({ target }) => target === dirname(source));
    assert.deepEqual([entry?.type, entry?.source], ['zfs', dataset()]);
    assert.equal(await readFile(`${source}/layer`, 'utf8'), 'of the layer');
    const [row] = await zfs.list({
      root: dataset(),
      depth: 0,
      types: ['filesystem'],
      properties: ['mountpoint'],
    });
    assert.equal(row?.properties.get('mountpoint')?.value, 'legacy');
  });

  test('a disk in use is mounted once more, read-only, as a bind: the module itself would refuse that', async () => {
    const source = await rootfs(web.name);
    const target = `${folder}/again`;
    await mkdir(target);
    await assert.rejects(mount({ type: 'zfs', source: dataset(), target, options: ['ro'] }), {
      code: 'EBUSY',
    });
    await mount({ type: 'bind', source, target, options: ['rbind', 'ro'] });
    await writeFile(`${source}/now`, 'seen');
    assert.equal(await readFile(`${target}/now`, 'utf8'), 'seen');
    await assert.rejects(writeFile(`${target}/now`, 'no'), { code: 'EROFS' });
    await writeFile(`${source}/now`, 'still writable');
    await unmount(target);
  });

  test('a snapshot has what was written through a shared mapping once the file system was synced, and not before', async () => {
    const source = await rootfs(web.name);
    const file = new MappedFile(`${source}/mapped`);
    file.write('old');
    await syncfs(source);
    file.write('new');
    const seen: string[] = [];
    for (const name of ['before', 'after']) {
      if (name === 'after') await syncfs(source);
      await zfs.snapshot([`${dataset()}@${name}`]);
      seen.push((await readSnapshot(`${dataset()}@${name}`, `${ROOTFS}/mapped`)).slice(0, 3));
      await zfs.destroy(`${dataset()}@${name}`);
    }
    file.close();
    assert.deepEqual(seen, ['old', 'new']);
  });

  test('a commit syncs first', async () => {
    const key = 'default/5/mapped';
    await store.prepare({ ...web, name: key });
    const file = new MappedFile(`${await rootfs(key)}/mapped`);
    file.write('through the mapping');
    await store.commit({ name: 'default/6/mapped', key, labels: {}, parent: '' });
    file.close();
    const [view] = await store.prepare({
      name: 'default/7/view',
      kind: 'view',
      parent: 'default/6/mapped',
      labels: {},
    });
    assert.match(await readFile(`${view?.source ?? ''}/mapped`, 'utf8'), /^through the mapping/);
    await store.remove('default/7/view');
    await store.remove('default/6/mapped');
  });

  test('shows its files under other ids to those who mount it as its mounts say', async () => {
    const labels = {
      'containerd.io/snapshot/uidmapping': '0:100000:65536',
      'containerd.io/snapshot/gidmapping': '0:200000:65536',
    };
    const [mapped] = await store.prepare({ ...web, name: 'default/9/mapped', labels });
    assert.ok(mapped !== undefined && mapsIds(zfs, release()));
    const target = `${folder}/mapped`;
    await mkdir(target);
    await mountAsAsked({ ...mapped, target });
    const { uid, gid } = await stat(`${target}/layer`);
    assert.deepEqual([uid, gid], [100_000, 200_000]);
    await chown(`${target}/layer`, 100_007, 200_008);
    const inside = await stat(`${mapped.source}/layer`);
    assert.deepEqual([inside.uid, inside.gid], [7, 8]);
    await unmount(target);
    await store.remove('default/9/mapped');
  });

  test('a snapshot that a clone stands on is destroyed when the clone is', async () => {
    const snapshot = `${dataset()}@held`;
    await zfs.snapshot([snapshot]);
    await zfs.clone(snapshot, `${pool}/stasis/clone`);
    await zfs.destroy(snapshot, { defer: true });
    const left = async (): Promise<string[]> =>
      (await zfs.list({ root: dataset(), types: ['snapshot'], properties: [] })).map(({ name }) => name);
    assert.deepEqual(await left(), [snapshot]);
    await zfs.destroy(`${pool}/stasis/clone`);
    assert.deepEqual(await left(), []);
  });

  test('after a reboot, and under another name of the pool, a disk is mounted when it is asked for', async () => {
    await writeFile(join(await rootfs(web.name), 'kept'), 'over a reboot');
    const before = dataset();
    await shutDown();
    zpool('import', '-N', '-o', 'cachefile=none', '-d', folder, pool, `${pool}-new`);
    pool = `${pool}-new`;
    store = await open();
    commands.length = 0;
    assert.equal(await readFile(join(await rootfs(web.name), 'kept'), 'utf8'), 'over a reboot');
    assert.deepEqual(commands, []);
    assert.equal(dataset(), before.replace(/^[^/]*/, pool));
    await store.prepare({ ...web, name: 'default/8/more' });
    await store.remove('default/8/more');
  });

  test('a removed disk that a process still works in goes when that ends', async () => {
    const source = await rootfs(web.name);
    const target = `${folder}/bundle`;
    await mkdir(target);
    await mount({ type: 'bind', source, target, options: ['rbind', 'rw'] });
    await store.remove(web.name);
    assert.equal((await store.sweep()).failed.length, 1);
    await writeFile(`${target}/f`, 'still here');
    assert.equal(await readFile(`${target}/f`, 'utf8'), 'still here');
    await unmount(target);
    assert.deepEqual((await store.sweep()).failed, []);
    const rows = await zfs.list({ root: pool, types: ['filesystem'], properties: [] });
    assert.deepEqual(
      rows.map(({ name }) => name).filter((name) => /web/.test(name)),
      [],
    );
  });

  async function readSnapshot(snapshot: string, path: string): Promise<string> {
    const target = `${folder}/snapshot`;
    await mkdir(target, { recursive: true });
    await mount({ type: 'zfs', source: snapshot, target, options: ['ro'] });
    try {
      return await readFile(join(target, path), 'utf8');
    } finally {
      await unmount(target);
    }
  }
});
