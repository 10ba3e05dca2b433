// Loads the index as stasisd does, and tells how long that took and what the process then weighs: see many.ts.
import { readPool } from '../../../snapshotter/load.ts';
import { SnapshotStore } from '../../../snapshotter/store.ts';
import { Catalog } from '../../../src/checkpoint/catalog.ts';
import { exec } from '../../../src/sys/command.ts';
import { ZfsMounter } from '../../../src/zfs/mounter.ts';
import { openZfs } from '../../../src/zfs/zfs.ts';

const [program = 'zfs', root = '', owner = ''] = process.argv.slice(2);
const zfs = await openZfs(exec, { zfs: program, zpool: 'zpool' });

async function load(): Promise<SnapshotStore> {
  const rows = await readPool(zfs, root);
  await new Catalog(zfs).load(rows);
  const mounter = new ZfsMounter(zfs, root, '/nowhere');
  const store = new SnapshotStore({ zfs, mounter, root, owner, trashGrace: 0 });
  await store.load(rows);
  return store;
}

const begin = process.hrtime.bigint();
const store = await load();
const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
await new Promise((resolve) => setTimeout(resolve, 1000)); // what is not needed any more goes meanwhile
const snapshots = [...store.list([])].length;
console.log(JSON.stringify({ seconds, megabytes: process.memoryUsage.rss() / 1e6, snapshots }));
