import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { changedDeb, deb, debianTree, inTree, newer, run, scratch } from './support.ts';

test('a Debian 12 host without systemd, on zfs-fuse: install, setup, main job, upgrade, downgrade, remove, purge', async (t) => {
  const tree = await debianTree();
  const folder = scratch(t, 'host');
  const packages = join(folder, 'packages');
  for (const name of ['first', 'second']) mkdirSync(join(packages, name), { recursive: true });
  for (const name of ['stasis', 'stasis-criu'] as const)
    await run('cp', [deb(name, 'amd64'), join(packages, 'first')]);
  // The second build: the same, under a newer version.
  for (const name of ['stasis', 'stasis-criu'] as const)
    await changedDeb(deb(name, 'amd64'), join(packages, 'second', `${name}_2_amd64.deb`), newer);
  const said = await inTree(tree, join(folder, 'run'), 'job.sh', packages).catch(async (error: unknown) => {
    t.diagnostic(
      await run('sh', [
        '-c',
        `tail -n 30 '${folder}'/run/upper/var/log/stasisd.log '${folder}'/run/upper/var/log/containerd.log || true`,
      ]),
    );
    throw error;
  });
  assert.match(said, /^all: ok$/m);
});
