import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { breakOffDump } from '../../../src/criu/break-off.ts';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'stasis-break-off-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('the image folder is gone until it is put back, empty and with its mode', async () => {
  const image = join(folder, 'image');
  mkdirSync(image, { mode: 0o750 });
  writeFileSync(join(image, 'pages-1.img'), 'x');
  const broken = breakOffDump(image);
  await broken.gone;
  assert.equal(existsSync(image), false);
  await broken.putBack();
  assert.deepEqual(readdirSync(image), []);
  assert.equal(statSync(image).mode & 0o777, 0o750);
});

test('a folder that is not there stays so', async () => {
  const broken = breakOffDump(join(folder, 'none'));
  await broken.putBack();
  assert.deepEqual(readdirSync(folder), []);
});

test('one whose parent was removed meanwhile stays away, with the parent', async () => {
  const stage = join(folder, 'dump-1');
  const image = join(stage, 'image');
  mkdirSync(image, { recursive: true });
  const broken = breakOffDump(image);
  await broken.gone;
  rmSync(stage, { recursive: true });
  await broken.putBack();
  assert.deepEqual(readdirSync(folder), []);
});
