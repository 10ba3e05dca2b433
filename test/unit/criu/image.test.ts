import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, afterEach, test } from 'node:test';
import {
  emptyImage,
  guardImage,
  prepareImage,
  readImage,
  requireWholeImage,
} from '../../../src/criu/image.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'stasis-image-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const whole = ['inventory.img', 'pstree.img', 'core-1.img', 'mm-1.img', 'pagemap-1.img', 'descriptors.json'];
const fill = (names: readonly string[]): void => {
  for (const name of names) writeFileSync(join(folder, name), 'four', { mode: 0o644 });
};

test('a whole image is accepted and its size told', async () => {
  fill(whole);
  assert.equal((await requireWholeImage(folder)).bytes, 4 * whole.length);
});

for (const name of whole) {
  test(`an image without ${name} is not taken for whole`, async () => {
    fill(whole.filter((other) => other !== name));
    await assert.rejects(requireWholeImage(folder), new RegExp(name.replace('-1', '-.')));
  });
}

test('a folder that does not exist has everything missing', async () => {
  assert.equal((await readImage(join(folder, 'nope'))).missing.length, whole.length);
});

test('a guarded image is readable by its owner alone', async () => {
  fill(whole);
  await guardImage(folder, await readImage(folder));
  assert.equal(statSync(folder).mode & 0o777, 0o700);
  for (const name of whole) assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600);
});

test('a dump is never mixed into another', async () => {
  fill(['pages-1.img']);
  await assert.rejects(prepareImage(folder, true), /not empty: it holds pages-1\.img/);
  await emptyImage(folder);
  await prepareImage(folder, false);
  await prepareImage(join(folder, 'new', 'deeper'), true);
});

test('a folder that its maker has taken away is not made again', async () => {
  const gone = join(folder, 'gone', 'image');
  await assert.rejects(prepareImage(gone, false), /gone\/image is not there any more/);
  assert.equal(existsSync(join(folder, 'gone')), false);
});

test('emptying takes folders too, and leaves the image folder', async () => {
  fill(whole);
  mkdirSync(join(folder, 'sub'));
  await emptyImage(folder);
  assert.deepEqual((await readImage(folder)).files, []);
  assert.ok(statSync(folder).isDirectory());
});
