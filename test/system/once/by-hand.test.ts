// What somebody does to the datasets by hand, with zfs itself.
import assert from 'node:assert/strict';
import { before, suite, test } from 'node:test';
import { uniqueName } from '../support/container.ts';
import { routed } from '../support/daemon.ts';
import {
  attempt,
  ctr,
  datasets,
  dev,
  importImage,
  must,
  refused,
  stack,
  stasis,
  until,
} from '../support/stack.ts';

const snapshots = (...args: string[]): Promise<string> =>
  ctr('snapshots', '--snapshotter', 'stasis', ...args);

/** containerd's name of the image's last layer. */
async function layer(): Promise<string> {
  const rows = (await snapshots('ls')).split('\n').map((row) => row.trim().split(/\s+/));
  const name = rows.find((row) => row.at(-1) === 'Committed')?.[0];
  assert.ok(name);
  return name;
}

async function prepare(...keys: string[]): Promise<void> {
  const parent = await layer();
  for (const key of keys) await snapshots('prepare', key, parent);
}

const place = (key: string): string => `${stack.root}/containers/default/${key}`;
/** As an administrator does it; on zfs-fuse an unmount takes effect a little after it has returned. */
async function destroy(dataset: string): Promise<void> {
  await attempt('zfs', ['unmount', dataset]);
  await until('it to be free', async () =>
    (await attempt('zfs', ['destroy', '-r', dataset])).exitCode === 0 ? true : undefined,
  );
}

const index = async (): Promise<string> => (await attempt('stasis', ['info'])).stdout;

suite('datasets that were touched by hand', () => {
  before(importImage);

  test('one that was destroyed stops neither its own removal nor the collector, and stasis info tells of it', async () => {
    const [gone, beside, later] = [uniqueName('ga'), uniqueName('gb'), uniqueName('gc')];
    await prepare(gone, beside, later);
    await destroy(place(gone));
    assert.match(await index(), new RegExp(`missing +index .*the pool does not have .*${place(gone)}`));
    const mounts = await attempt('ctr', ['snapshots', '--snapshotter', 'stasis', 'mounts', '/m', gone]);
    assert.match(mounts.stderr, /not found/);
    for (const key of [gone, beside]) await snapshots('rm', key);
    await ctr('leases', 'create', '--id', gone);
    await ctr('leases', 'rm', '--sync', gone);
    await until('the collector to remove the other', () =>
      datasets().includes(place(beside)) ? undefined : true,
    );
    assert.match(await index(), /ok +index/);
    await snapshots('rm', later);
  });

  test('and keys that cannot be are refused by name, and leave nothing', async () => {
    const parent = await layer();
    const before = datasets();
    const refuse = async (args: string[], what: RegExp): Promise<void> => {
      const result = await attempt('ctr', ['snapshots', '--snapshotter', 'stasis', ...args]);
      assert.match(result.stderr, what);
      assert.notEqual(result.exitCode, 0);
    };
    await refuse(['prepare', '', parent], /needs a key, and this one is empty: invalid argument/);
    await refuse(['prepare', 'k'.repeat(1200), parent], /the snapshot's key is too long.*: invalid argument/);
    // What other tests removed may move to the trash meanwhile.
    const made = datasets().filter((name) => !before.includes(name) && !name.includes('/trash/'));
    assert.deepEqual(made, []);
  });

  test('one whose properties cannot be read is shown with what is wrong, and can be dropped', async () => {
    const [labels, owner, sound] = [uniqueName('h'), uniqueName('h'), uniqueName('h')];
    await prepare(labels, owner, sound);
    await must('zfs', ['set', 'stasis:labels=garbage', place(labels)]);
    await must('zfs', ['inherit', 'stasis:owner', place(owner)]);
    await dev('stop', 'stasisd');
    await dev('start', 'stasisd');
    await routed();
    assert.match(
      await index(),
      new RegExp(`missing +index .*${place(labels)}, ${place(owner)} cannot be read`),
    );
    const shown = await stasis('adopt', '--dry-run');
    assert.match(shown, new RegExp(`skipped: ${place(labels)}: unreadable: .*garbage`));
    assert.match(
      shown,
      new RegExp(`skipped: ${place(owner)}: unreadable: it has no stasis:owner; .*--drop ${place(owner)}\n`),
    );
    for (const key of [labels, owner]) {
      assert.match(await stasis('df'), new RegExp(`unreadable .*${place(key)}\n`));
      await snapshots('rm', key);
    }
    assert.match(await refused(5, 'adopt', '--drop', place(sound)), /is this containerd's/);
    assert.match(await stasis('adopt', '--drop', place(labels), place(owner)), /2 dropped/);
    assert.match(await index(), /ok +index/);
    await snapshots('rm', sound);
  });
});
