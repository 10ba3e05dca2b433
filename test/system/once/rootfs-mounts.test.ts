import assert from 'node:assert/strict';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import {
  mountRootfs,
  removeMountPoints,
  unmountBelow,
  unmountRootfs,
} from '../../../shim/container/rootfs.ts';
import { hasErrno } from '../../../src/errors.ts';
import { isMountPoint, mount, mountArguments } from '../../../src/sys/mount.ts';

const tmpfs = (target = '') => ({ type: 'tmpfs', source: 'tmpfs', target, options: ['size=64k'] });

function bundle(t: TestContext): { rootfs: string; mounted: () => string[] } {
  const folder = mkdtempSync(join(tmpdir(), 'rootfs-'));
  const rootfs = join(folder, 'rootfs');
  mkdirSync(join(rootfs, 'data/deep'), { recursive: true });
  t.after(async () => {
    await unmountBelow(folder);
    rmSync(folder, { recursive: true });
  });
  const mounted = (): string[] =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((place) => place.startsWith(folder))
      .map((place) => place.slice(folder.length + 1));
  return { rootfs, mounted };
}

test('whether something is mounted is asked of the place alone, and leaves it there', async (t) => {
  const { rootfs, mounted } = bundle(t);
  assert.equal(isMountPoint(rootfs), false);
  assert.equal(isMountPoint(join(rootfs, 'missing')), false);
  await mountRootfs([tmpfs()], rootfs);
  assert.equal(isMountPoint(rootfs), true);
  assert.deepEqual(mounted(), ['rootfs']);
  const held = openSync(rootfs, 'r');
  assert.equal(isMountPoint(rootfs), true, 'also while it is in use');
  closeSync(held);
});

test('mounts on top of each other are all taken away', async (t) => {
  const { rootfs, mounted } = bundle(t);
  await mountRootfs([tmpfs(), tmpfs(), tmpfs()], rootfs);
  assert.equal(mounted().length, 3);
  await unmountRootfs(rootfs);
  assert.deepEqual(mounted(), []);
});

test('a mount inside the root file system does not keep it', async (t) => {
  const { rootfs, mounted } = bundle(t);
  await mountRootfs([tmpfs()], rootfs);
  mkdirSync(join(rootfs, 'late'));
  await mount({ ...tmpfs(), target: join(rootfs, 'late') });
  assert.deepEqual(mounted(), ['rootfs', 'rootfs/late']);
  await unmountRootfs(rootfs);
  assert.deepEqual(mounted(), []);
});

test('mounts below a folder that is none itself are taken away', async (t) => {
  const { rootfs, mounted } = bundle(t);
  await mountRootfs([tmpfs('data'), tmpfs('data')], rootfs);
  assert.deepEqual(mounted(), ['rootfs/data', 'rootfs/data']);
  await unmountRootfs(rootfs);
  assert.deepEqual(mounted(), []);
});

test('where nothing is mounted, or nothing is, there is nothing to do', async (t) => {
  const { rootfs } = bundle(t);
  await unmountRootfs(rootfs);
  await unmountRootfs(join(rootfs, 'missing'));
});

test('an overlay of more layers than mount(2) has room for, with the reason where it cannot be', async (t) => {
  const { rootfs } = bundle(t);
  const layers = join(rootfs, '../layers-of-an-image-that-was-built-by-many-hands');
  const lowers = Array.from({ length: 60 }, (_, at) => join(layers, `${at}/file-system`));
  for (const [at, lower] of lowers.entries()) {
    mkdirSync(lower, { recursive: true });
    writeFileSync(join(lower, `of-${at}`), '');
  }
  const overlay = (folders: readonly string[]) => ({
    ...{ type: 'overlay', source: 'overlay', target: rootfs, options: [`lowerdir=${folders.join(':')}`] },
  });
  assert.ok(mountArguments(overlay(lowers).options).data.length > 4096);
  const before = process.cwd();
  await mount(overlay(lowers));
  assert.equal(readdirSync(rootfs).length, 60);
  const missing = [...lowers.slice(1), join(layers, 'x/file-system')];
  await assert.rejects(
    mount(overlay(missing)),
    (error: Error) => hasErrno(error, 'ENOENT') && error.message.includes(rootfs),
  );
  assert.equal(process.cwd(), before);
});

test('what a runtime has made to mount on goes where nothing was mounted, and nothing else does', async (t) => {
  const { rootfs } = bundle(t);
  const files = (): string[] => readdirSync(rootfs, { recursive: true }).map(String).sort();
  mkdirSync(join(rootfs, 'proc'));
  mkdirSync(join(rootfs, 'etc'));
  writeFileSync(join(rootfs, 'etc/hosts'), '');
  writeFileSync(join(rootfs, 'data/kept'), 'x');
  const all = files();
  await removeMountPoints(rootfs, []); // the folder was the root file system
  await removeMountPoints(rootfs, [tmpfs('data')]);
  assert.deepEqual(files(), all);
  await mountRootfs([tmpfs('data/deep')], rootfs);
  await removeMountPoints(rootfs, [tmpfs()]);
  assert.deepEqual(files(), ['data', 'data/deep', 'data/kept']);
  await unmountRootfs(rootfs);
  await mountRootfs([tmpfs()], rootfs);
  mkdirSync(join(rootfs, 'inside'));
  await removeMountPoints(rootfs, [tmpfs()]);
  assert.deepEqual(files(), ['inside'], 'it is mounted');
});
