import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { CheckpointRecord } from '../../../src/checkpoint/record.ts';
import { SmallFiles } from '../../../src/checkpoint/small-files.ts';

const LIMIT = 1 << 20;

function recordOf(linux: object = {}): CheckpointRecord {
  const spec = { typeUrl: 'spec', value: Buffer.from(JSON.stringify({ linux })) };
  return { id: 'i', container: { id: 'web', spec } } as unknown as CheckpointRecord;
}

/** A staging folder, and an image in a pool, as a link of a chain. */
function setUp(context: TestContext, limit = LIMIT) {
  const root = mkdtempSync(join(tmpdir(), 'stasis-small-'));
  context.after(() => rmSync(root, { recursive: true }));
  const image = join(root, 'pool/image');
  mkdirSync(image, { recursive: true });
  mkdirSync(join(root, 'pool/link-1'));
  writeFileSync(join(root, 'pool/link-1/pages-1.img'), 'former');
  writeFileSync(join(image, 'core-1.img'), 'core');
  writeFileSync(join(image, 'pages-1.img'), 'pages');
  writeFileSync(join(image, 'ghost-file-3.img'), 'ghost');
  symlinkSync('../link-1', join(image, 'parent'));
  const staging = join(root, 'staging');
  return { image, staging, small: new SmallFiles(staging, limit), pool: join(root, 'pool') };
}

test('an image is lent whose small files are its own and whose pages are in the pool', async (context) => {
  const { image, small, pool } = setUp(context);
  await small.keep('i', image, recordOf());
  rmSync(join(image, 'core-1.img'));
  const lent = await small.lend('i', image);
  assert.ok(lent);
  const read = (name: string): string => readFileSync(join(lent.imageDir, name), 'utf8');
  assert.deepEqual(['core-1.img', 'pages-1.img', 'ghost-file-3.img', 'parent/pages-1.img'].map(read), [
    'core',
    'pages',
    'ghost',
    'former',
  ]);
  assert.equal(lent.record.id, 'i');
  await lent.remove();
  assert.equal(existsSync(lent.imageDir), false);
  assert.equal(readFileSync(join(pool, 'image/pages-1.img'), 'utf8'), 'pages');
});

test('nothing of the pool needs to be there when it is lent, and each reader has one of its own', async (context) => {
  const { image, small, pool } = setUp(context);
  await small.keep('i', image, recordOf());
  const [one, other] = [
    await small.lend('i', join(pool, 'a/image')),
    await small.lend('i', join(pool, 'b/image')),
  ];
  assert.ok(one && other);
  for (const [name, { imageDir }] of [['a', one] as const, ['b', other] as const]) {
    mkdirSync(join(pool, name, 'image'), { recursive: true });
    writeFileSync(join(pool, name, 'image/pages-1.img'), name);
    assert.equal(readFileSync(join(imageDir, 'pages-1.img'), 'utf8'), name);
  }
  await one.remove();
  assert.equal(readFileSync(join(other.imageDir, 'core-1.img'), 'utf8'), 'core');
});

test('a checkpoint that is gone is forgotten, and what was lent of it stays until it is given back', async (context) => {
  const { image, small, staging } = setUp(context);
  await small.keep('i', image, recordOf());
  const lent = await small.lend('i', image);
  assert.ok(lent);
  await small.drop('i');
  assert.equal(await small.lend('i', image), undefined);
  assert.equal(readFileSync(join(lent.imageDir, 'core-1.img'), 'utf8'), 'core');
  await lent.remove();
  assert.deepEqual(readdirSync(staging), []);
});

test('the least recently used go when the room is needed', async (context) => {
  const { image, small } = setUp(context, 9); // two images of four bytes each
  for (const id of ['a', 'b']) await small.keep(id, image, recordOf());
  await (await small.lend('a', image))?.remove();
  await small.keep('c', image, recordOf());
  const known = await Promise.all(['a', 'b', 'c'].map((id) => small.lend(id, image)));
  assert.deepEqual(
    known.map((lent) => lent !== undefined),
    [true, false, true],
  );
});

test('nothing is kept without room, of a container with a user namespace, or of an image of another shape', async (context) => {
  const { image, small, staging } = setUp(context);
  const mapping = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
  await small.keep('users', image, recordOf({ uidMappings: mapping, gidMappings: mapping }));
  await new SmallFiles(staging, 0).keep('off', image, recordOf());
  await new SmallFiles(staging, 3).keep('larger', image, recordOf());
  mkdirSync(join(image, 'folder'));
  await small.keep('shape', image, recordOf());
  for (const id of ['users', 'off', 'larger', 'shape'])
    assert.equal(await small.lend(id, image), undefined, id);
  assert.equal(existsSync(staging), false);
});
