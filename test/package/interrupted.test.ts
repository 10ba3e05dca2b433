import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { changedDeb, deb, debianTree, inTree, newer, scratch } from './support.ts';

/** Has each maintainer script run by bash, with what can cut it off. */
function withCut(folder: string): void {
  const control = join(folder, 'DEBIAN');
  for (const name of readdirSync(control).filter((one) => /^(pre|post)(inst|rm)$/.test(one))) {
    const path = join(control, name);
    const text = readFileSync(path, 'utf8');
    assert.match(text, /^#!\/bin\/sh\n/);
    writeFileSync(path, text.replace('#!/bin/sh\n', '#!/bin/bash\n. /usr/local/lib/cut\n'));
  }
}

test('dpkg that is killed before any command of a maintainer script is mended by the same command', async (t) => {
  const tree = await debianTree();
  const folder = scratch(t, 'interrupted');
  const packages = join(folder, 'packages');
  mkdirSync(packages);
  for (const name of ['first', 'second']) {
    await changedDeb(deb('stasis', 'amd64'), join(packages, `${name}.deb`), async (unpacked) => {
      withCut(unpacked);
      const node = join(unpacked, 'usr/lib/stasis/node');
      renameSync(node, join(packages, 'node'));
      symlinkSync('/usr/local/lib/node', node);
      if (name === 'second') await newer(unpacked);
    });
  }
  const said = await inTree(tree, join(folder, 'run'), 'interrupted.sh', packages);
  for (const line of said.matchAll(/^== (.*)\n(?:.*\n)*?(\d+ interruptions)$/gm))
    t.diagnostic(`${line[1]}: ${line[2]}`);
  assert.match(said, /^all: ok$/m);
});
