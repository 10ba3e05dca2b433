import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { changedDeb, deb, debianTree, inTree, newer, run, scratch } from './support.ts';

test('setup and an upgrade that cannot go on leave the host as it was, and files edited by hand as they are', async (t) => {
  const tree = await debianTree();
  const folder = scratch(t, 'faults');
  const packages = join(folder, 'packages');
  for (const name of ['first', 'second']) mkdirSync(join(packages, name), { recursive: true });
  for (const name of ['stasis', 'stasis-criu'] as const)
    await run('cp', [deb(name, 'amd64'), join(packages, 'first')]);
  await changedDeb(deb('stasis', 'amd64'), join(packages, 'second/stasis_2_amd64.deb'), async (unpacked) => {
    await newer(unpacked);
    appendFileSync(join(unpacked, 'etc/stasis/config.toml'), '# newer\n');
  });
  const said = await inTree(tree, join(folder, 'run'), 'setup-faults.sh', packages);
  assert.match(said, /^all: ok$/m);
});
