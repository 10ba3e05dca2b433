// A user namespace on the kernel module: the container has the image's own files, shown under other ids by idmapped mounts, where
// containerd would otherwise copy them all. zfs-fuse cannot (test/system/snapshotter/plugin.test.ts: it is not announced there).
import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import {
  checkpointsOf,
  inside,
  pidOf,
  progress,
  removeAll,
  startWriter,
} from '../system/support/container.ts';
import { ctr, datasets, importImage, must, stasis } from '../system/support/stack.ts';

const web = 'userns';
const clone = 'userns-1';

suite('a container in a user namespace', () => {
  let layers: string[];
  before(async () => {
    await importImage();
    layers = datasets().filter((name) => name.includes('/layers/'));
    // The rest is containerd's own: without these labels it copies the image's files and gives the copies away.
    const maps = ['--uidmap', '0:100000:65536', '--gidmap', '0:200000:65536'];
    await startWriter(web, { flags: [...maps, '--remap-labels'] });
  });
  after(() => removeAll(web, clone));

  /** Its root is somebody else outside, and owns in it what root owns in the pool. */
  async function isMapped(name: string): Promise<void> {
    const pid = await pidOf(name);
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    assert.match(status, /^Uid:\t100000\t100000/m);
    assert.match(status, /^Gid:\t200000\t200000/m);
    assert.match(
      readFileSync(`/proc/${pid}/mountinfo`, 'utf8'),
      /^\d+ \d+ \S+ \S+ \/ \S*idmapped\S* .*- zfs /m,
    );
    const mounts = await must('ctr', ['snapshots', '--snapshotter', 'stasis', 'mounts', '/mnt', name]);
    const [, source, options] = / (\S+) \/mnt -o (\S+)/.exec(mounts) ?? [];
    assert.match(options ?? '', /uidmap=0:100000:65536,gidmap=0:200000:65536/);
    for (const file of ['/bin/perl', '/appended']) {
      const [shown, kept] = [statSync(await inside(name, file)), statSync(`${source}${file}`)];
      assert.deepEqual(
        [shown.uid, shown.gid],
        [100_000, 200_000],
        `${file} as its container shows it outside`,
      );
      assert.deepEqual([kept.uid, kept.gid], [0, 0], `${file} in the pool`);
    }
  }

  test('has the files of its image under its own ids, and no copy of them', async () => {
    await progress(web, 5);
    await isMapped(web);
    assert.deepEqual(
      datasets().filter((name) => name.includes('/layers/')),
      layers,
    );
    assert.doesNotMatch(await ctr('snapshots', '--snapshotter', 'stasis', 'ls'), /remap/);
  });

  test('is checkpointed, cloned and rewound with them', async () => {
    await stasis('checkpoint', web, '--name', 'one', '--require-memory');
    await stasis('clone', web, '--from', 'one', '--name', clone);
    await progress(clone, 5);
    await isMapped(clone);
    await stasis('restore', web, '--snapshot', 'one', '--require-memory');
    await progress(web, 5);
    await isMapped(web);
    assert.deepEqual(await checkpointsOf(web), ['one']);
  });
});
