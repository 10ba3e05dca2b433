import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  cgroupPids,
  firstUnmounted,
  folderOf,
  foldersAt,
  resolveCgroup,
  type Cgroup,
} from '../../../src/sys/cgroup.ts';
import { cpuUsage } from '../../../src/sys/cgroup-cpu.ts';

const v1 = `24 23 0:20 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
25 23 0:21 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
26 23 0:22 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
27 23 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
28 23 0:24 / /tmp/with\\040space rw - cgroup cgroup rw,memory
`;

test('in v1 each controller has its own folder, and a mount point may hold blanks', () => {
  const cgroup = resolveCgroup(
    '5:memory:/default/web\n4:freezer:/default/web\n3:cpu,cpuacct:/default/web\n0::/\n',
    v1,
  );
  assert.equal(cgroup?.version, 1);
  assert.equal(cgroup?.path, '/default/web');
  assert.equal(cgroup && folderOf(cgroup, 'freezer'), '/sys/fs/cgroup/freezer/default/web');
  assert.equal(cgroup && folderOf(cgroup, 'cpuacct'), '/sys/fs/cgroup/cpu,cpuacct/default/web');
  assert.equal(cgroup && folderOf(cgroup, 'memory'), '/tmp/with space/default/web');
});

test('a controller whose hierarchy is mounted nowhere is left out', () => {
  const cgroup = resolveCgroup('9:hugetlb:/default/web\n4:freezer:/default/web\n', v1);
  assert.equal(cgroup && folderOf(cgroup, 'hugetlb'), undefined);
});

test('the root of a hierarchy is nobody’s cgroup: all of the host is in it', () => {
  const cgroup = resolveCgroup('4:freezer:/default/web\n3:cpu,cpuacct:/\n0::/\n', v1);
  assert.deepEqual(cgroup && [...cgroup.folders.keys()], ['freezer']);
  assert.equal(resolveCgroup('4:freezer:/\n3:cpu,cpuacct:/\n0::/\n', v1), undefined);
  assert.equal(resolveCgroup('0::/\n', v2), undefined);
  const part = '24 23 0:20 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n';
  assert.equal(resolveCgroup('0::/docker/abc\n', part), undefined);
});

test('the first hierarchy that is mounted nowhere is told, and where v2 is the host’s there is none', () => {
  assert.equal(firstUnmounted('memory', '9:hugetlb:/\n4:freezer:/web\n', v1), 'hugetlb');
  assert.equal(firstUnmounted('memory', '9:memory:/\n4:freezer:/web\n3:name=x:/\n', v1), undefined);
  assert.equal(firstUnmounted('memory', '9:memory:/\n4:name=x:/web\n', v1), 'name=x');
  assert.equal(firstUnmounted('memory', '1:name=systemd:/\n0::/web\n', v2), undefined);
});

test('a path with colons stays whole', () => {
  const cgroup = resolveCgroup('4:freezer:/system.slice/a:b:c\n', v1);
  assert.equal(cgroup?.path, '/system.slice/a:b:c');
});

test('a path stands in each of v1’s hierarchies, and not in an empty v2 beside them', () => {
  assert.deepEqual(foldersAt('/shims', v1), [
    '/sys/fs/cgroup/cpu,cpuacct/shims',
    '/sys/fs/cgroup/freezer/shims',
    '/sys/fs/cgroup/systemd/shims',
    '/tmp/with space/shims',
  ]);
  assert.deepEqual(foldersAt('/shims', v2), ['/sys/fs/cgroup/shims']);
});

const v2 = '24 23 0:20 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n';

test('in v2 there is one folder for every controller', () => {
  const cgroup = resolveCgroup('0::/system.slice/web.scope\n', v2);
  assert.equal(cgroup?.version, 2);
  assert.equal(cgroup && folderOf(cgroup, 'memory'), '/sys/fs/cgroup/system.slice/web.scope');
});

test('a mount that shows only a part of the hierarchy is seen through', () => {
  const mount = '24 23 0:20 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n';
  const inside = resolveCgroup('0::/docker/abc/web\n', mount);
  assert.equal(inside && folderOf(inside, ''), '/sys/fs/cgroup/web');
  assert.equal(resolveCgroup('0::/docker/abcd\n', mount), undefined);
});

const folder = mkdtempSync(join(tmpdir(), 'stasis-cgroup-'));
after(() => rmSync(folder, { recursive: true }));
const fake: Cgroup = { version: 2, path: '/web', folders: new Map([['', folder]]) };

test('processes in nested cgroups are found, those of other pid namespaces left out', async () => {
  mkdirSync(join(folder, 'init.scope/deeper'), { recursive: true });
  writeFileSync(join(folder, 'cgroup.procs'), '1\n');
  writeFileSync(join(folder, 'init.scope/deeper/cgroup.procs'), '7\n0\n8\n');
  assert.deepEqual((await cgroupPids(fake)).sort(), [1, 7, 8]);
});

test('a cgroup that is gone has no processes and no CPU time', async () => {
  const gone: Cgroup = { version: 2, path: '/web', folders: new Map([['', join(folder, 'gone')]]) };
  assert.deepEqual(await cgroupPids(gone), []);
  assert.equal(await cpuUsage(gone), undefined);
});

test('CPU time is in nanoseconds, whichever version counts it', async () => {
  writeFileSync(join(folder, 'cpu.stat'), 'usage_usec 1500\nuser_usec 1000\n');
  assert.equal(await cpuUsage(fake), 1_500_000n);
  writeFileSync(join(folder, 'cpuacct.usage'), '123456789\n');
  assert.equal(
    await cpuUsage({ version: 1, path: '/web', folders: new Map([['cpuacct', folder]]) }),
    123456789n,
  );
});
