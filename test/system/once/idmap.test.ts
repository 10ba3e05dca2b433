// Mounts that show files under other ids, as containerd's snapshotters ask for them in a mount's options.
import assert from 'node:assert/strict';
import { chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test, type TestContext } from 'node:test';
import { mountRootfs, unmountRootfs } from '../../../shim/container/rootfs.ts';
import { mount, unmount } from '../../../src/sys/mount.ts';
import { mountAsAsked } from '../../../src/sys/mount-mapped.ts';
import { readMountTable } from '../../../src/sys/mount-table.ts';
import { stack } from '../support/stack.ts';

const folder = mkdtempSync(join(stack.state, 'data/tmp/idmap-'));
after(() => rmSync(folder, { recursive: true }));
const mapped = ['uidmap=0:100000:65536', 'gidmap=0:200000:65536'];

/** A folder with a file of root's and one of uid 7 and gid 8. */
function tree(name: string): string {
  const at = join(folder, name);
  mkdirSync(at);
  writeFileSync(join(at, 'root'), '');
  writeFileSync(join(at, 'other'), '');
  chownSync(join(at, 'other'), 7, 8);
  return at;
}

function target(t: TestContext): string {
  const at = mkdtempSync(join(folder, 'target-'));
  t.after(() => unmount(at).catch(() => undefined));
  return at;
}

const owners = (path: string): number[] => [statSync(path).uid, statSync(path).gid];
const mountsAt = async (at: string): Promise<number> =>
  (await readMountTable()).filter((entry) => entry.target === at || entry.target.startsWith(`${at}/`)).length;

test('a mapped bind shows every owner moved, is one mount, and writes back what it is told', async (t) => {
  const source = tree('bind');
  const at = target(t);
  await mountAsAsked({ type: 'bind', source, target: at, options: ['rw', 'rbind', ...mapped] });
  assert.deepEqual(owners(join(at, 'root')), [100_000, 200_000]);
  assert.deepEqual(owners(join(at, 'other')), [100_007, 200_008]);
  chownSync(join(at, 'root'), 100_003, 200_004);
  assert.deepEqual(owners(join(source, 'root')), [3, 4], 'the file system has unmapped ids');
  assert.equal(await mountsAt(at), 1);
});

test('a mapped bind that is read-only is read-only', async (t) => {
  const source = tree('read-only');
  const at = target(t);
  await mountAsAsked({ type: 'bind', source, target: at, options: ['ro', 'rbind', ...mapped] });
  assert.throws(() => writeFileSync(join(at, 'new'), ''), { code: 'EROFS' });
  assert.deepEqual(owners(join(at, 'other')), [100_007, 200_008]);
});

test('a recursive bind maps what is mounted below too', async (t) => {
  const source = tree('recursive');
  const below = join(source, 'below');
  mkdirSync(below);
  await mount({ type: 'tmpfs', source: 'tmpfs', target: below, options: ['mode=755'] });
  t.after(() => unmount(below));
  writeFileSync(join(below, 'file'), '');
  const at = target(t);
  t.after(() => unmountRootfs(at));
  await mountAsAsked({ type: 'bind', source, target: at, options: ['rbind', ...mapped] });
  assert.deepEqual(owners(join(at, 'below/file')), [100_000, 200_000]);
  assert.equal(await mountsAt(at), 2);
});

test('a mapped file system of its own is mapped as well', async (t) => {
  const at = target(t);
  await mountAsAsked({ type: 'tmpfs', source: 'tmpfs', target: at, options: ['mode=755', ...mapped] });
  assert.deepEqual(owners(at), [100_000, 200_000]);
  assert.equal(await mountsAt(at), 1);
});

test('of a mapped overlay the lower folders are mapped, and nothing of the way there is left', async (t) => {
  const [one, two] = [tree('lower:1'), tree('lower2')];
  writeFileSync(join(one, 'first'), '');
  const [upper, work] = [tree('upper'), join(folder, 'work')];
  mkdirSync(work);
  const at = target(t);
  const lowers = [one, two].map((path) => path.replace(':', '\\:')).join(':');
  const temporary = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('stasis-mapped-'));
  const before = temporary();
  const options = [`lowerdir=${lowers}`, `upperdir=${upper}`, `workdir=${work}`, ...mapped];
  await mountAsAsked({ type: 'overlay', source: 'overlay', target: at, options });
  assert.deepEqual(owners(join(at, 'first')), [100_000, 200_000]);
  assert.deepEqual(
    owners(join(at, 'other')),
    [7, 8],
    'what is in the upper folder is written with mapped ids',
  );
  assert.equal(await mountsAt(at), 1);
  assert.deepEqual(temporary(), before);
});

test('half a mapping, one that is none, and a file system that maps no ids: refused, with nothing mounted', async (t) => {
  const source = tree('refused');
  const rootfs = target(t);
  const refuse = async (from: string, options: string[], why: RegExp): Promise<void> => {
    await assert.rejects(mountRootfs([{ type: 'bind', source: from, target: '', options }], rootfs), why);
    assert.equal(await mountsAt(rootfs), 0, String(why));
  };
  await refuse(source, ['rbind', 'uidmap=0:1000:1'], /gidmap= is missing/);
  for (const bad of ['', '0', '0:1000', '0:1000:0', '0:4294967295:1', '-1:0:1', '0:1:2:3', '0:0:1,', 'a:b:c'])
    await refuse(source, ['rbind', `uidmap=${bad}`, 'gidmap=0:1000:1'], /is no mapping of uids/);
  await refuse(source, ['rbind', 'uidmap=0:1000:10,5:2000:10', 'gidmap=0:1000:1'], /EINVAL/);
  await refuse('/proc', ['bind', ...mapped], /mount_setattr .*\/target-.*EINVAL/);
});

test('several ranges are each mapped', async (t) => {
  const source = tree('ranges');
  const at = target(t);
  const options = ['rbind', 'uidmap=0:100000:5,7:300000:1', 'gidmap=0:200000:10'];
  await mountAsAsked({ type: 'bind', source, target: at, options });
  assert.deepEqual(owners(join(at, 'root')), [100_000, 200_000]);
  assert.deepEqual(owners(join(at, 'other')), [300_000, 200_008]);
});
