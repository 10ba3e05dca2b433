import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NotFound } from '../../../src/errors.ts';
import { Metrics as MetricsV1 } from '../../../src/proto/gen/containerd/cgroups_v1.ts';
import { Metrics as MetricsV2 } from '../../../src/proto/gen/containerd/cgroups_v2.ts';
import type { Cgroup } from '../../../src/sys/cgroup.ts';
import { toNumber } from '../../../src/sys/cgroup-files.ts';
import { watchOom } from '../../../src/sys/cgroup-oom.ts';
import { openStats } from '../../../src/sys/cgroup-stats.ts';
import { blkioEntries, pageSizesOf } from '../../../src/sys/cgroup-stats-v1.ts';
import { pressureOf, rdmaEntries } from '../../../src/sys/cgroup-stats-v2.ts';

const root = mkdtempSync(join(tmpdir(), 'stasis-stats-'));
after(() => rmSync(root, { recursive: true }));

/** A folder of plain files stands in for the kernel's. */
function folder(files: Record<string, string>): string {
  const path = mkdtempSync(join(root, 'c'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return path;
}

test('v1 figures reach the fields that containerd’s clients read', async () => {
  const path = folder({
    notify_on_release: '0\n',
    'cpuacct.usage': '5000000000\n',
    'cpuacct.usage_percpu': '3000000000 2000000000 \n',
    'cpuacct.stat': 'user 300\nsystem 200\n',
    'memory.stat':
      'cache 4096\nrss 8192\ntotal_inactive_file 77\nhierarchical_memory_limit 9223372036854771712\n',
    'memory.usage_in_bytes': '12288\n',
    'memory.limit_in_bytes': '9223372036854771712\n',
    'memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 3\n',
    'pids.current': '4\n',
    'pids.max': 'max\n',
  });
  const controllers = ['cpuacct', 'memory', 'pids'];
  const stats = openStats({
    version: 1,
    path: '/web',
    folders: new Map(controllers.map((name) => [name, path])),
  });
  const packed = await stats.read();
  assert.equal(packed.typeUrl, 'io.containerd.cgroups.v1.Metrics');
  const metrics = MetricsV1.decode(packed.value);
  assert.deepEqual(metrics.cpu?.usage, {
    total: 5_000_000_000n,
    kernel: 2_000_000_000n,
    user: 3_000_000_000n,
    perCpu: [3_000_000_000n, 2_000_000_000n],
  });
  assert.equal(metrics.memory?.usage?.usage, 12288n);
  assert.equal(metrics.memory?.usage?.limit, 9223372036854771712n);
  assert.equal(metrics.memory?.totalInactiveFile, 77n);
  assert.equal(metrics.memoryOomControl?.oomKill, 3n);
  assert.deepEqual(metrics.pids, { current: 4n, limit: 0n }); // containerd writes `max` as 0 in v1
  assert.equal(metrics.blkio, undefined);
  stats.close();
});

test('v2 figures reach the fields that containerd’s clients read', async () => {
  const path = folder({
    'cgroup.events': 'populated 1\nfrozen 0\n',
    'cpu.stat': 'usage_usec 500\nuser_usec 300\nsystem_usec 200\n',
    'memory.stat': 'anon 8192\nfile 4096\nworkingset_refault_anon 9\n',
    'memory.current': '12288\n',
    'memory.max': 'max\n',
    'memory.events': 'low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\n',
    'memory.pressure':
      'some avg10=1.50 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n',
    'io.stat': '8:0 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=0 dios=0\n',
    'pids.current': '4\n',
    'pids.max': '100\n',
  });
  const stats = openStats({ version: 2, path: '/web', folders: new Map([['', path]]) });
  const packed = await stats.read();
  assert.equal(packed.typeUrl, 'io.containerd.cgroups.v2.Metrics');
  const metrics = MetricsV2.decode(packed.value);
  assert.equal(metrics.cpu?.usageUsec, 500n);
  assert.equal(metrics.memory?.usage, 12288n);
  assert.equal(metrics.memory?.usageLimit, 2n ** 64n - 1n);
  assert.equal(metrics.memory?.psi?.some?.avg10, 1.5);
  assert.equal(metrics.memoryEvents?.oomKill, 1n);
  assert.deepEqual(metrics.io?.usage, [
    { major: 8n, minor: 0n, rbytes: 100n, wbytes: 200n, rios: 3n, wios: 4n },
  ]);
  assert.deepEqual(metrics.pids, { current: 4n, limit: 100n });
  stats.close();
});

test('figures of a cgroup that was never there are NotFound, not zeros', async () => {
  const stats = openStats({ version: 2, path: '/web', folders: new Map([['', join(root, 'gone')]]) });
  await assert.rejects(stats.read(), NotFound);
});

test('an out-of-memory kill is told once, also when it is looked for again', async () => {
  const path = folder({ 'memory.oom_control': 'oom_kill 0\n' });
  const cgroup: Cgroup = { version: 1, path: '/web', folders: new Map([['memory', path]]) };
  const stats = openStats(cgroup);
  let told = 0;
  const watch = watchOom(cgroup, stats, () => told++);
  watch.check();
  assert.equal(told, 0);
  writeFileSync(join(path, 'memory.oom_control'), 'oom_kill 2\n');
  watch.check();
  watch.check();
  assert.equal(told, 1);
  watch.close();
  const next = watchOom(cgroup, stats, () => told++, watch.kills);
  next.check();
  assert.equal(told, 1, 'nor by a process that is told how many there were');
  next.close();
  stats.close();
});

test('v2: a kill is noticed without being asked', async () => {
  const path = folder({ 'memory.events': 'oom_kill 0\n' });
  const cgroup: Cgroup = { version: 2, path: '/web', folders: new Map([['', path]]) };
  const stats = openStats(cgroup);
  let told = 0;
  const watch = watchOom(cgroup, stats, () => told++);
  writeFileSync(join(path, 'memory.events'), 'oom_kill 1\n');
  for (let tries = 0; told === 0 && tries < 100; tries++) await sleep(10);
  assert.equal(told, 1);
  watch.close();
  stats.close();
});

test('numbers that are none count as zero, never as NaN', () => {
  assert.equal(toNumber('-1\n', 9n), 0n);
  assert.equal(toNumber('', 9n), 0n);
  assert.equal(toNumber('max\n', 9n), 9n);
  assert.equal(toNumber('18446744073709551615\n', 9n), 2n ** 64n - 1n);
});

test('lines that are not as expected are left out', () => {
  assert.deepEqual(blkioEntries('8:0 Read 5\nTotal 5\nnonsense\n', new Map([['8:0', '/dev/sda']])), [
    { op: 'Read', device: '/dev/sda', major: 8n, minor: 0n, value: 5n },
  ]);
  assert.deepEqual(rdmaEntries('mlx4_0 hca_handle=2 hca_object=max\n'), [
    { device: 'mlx4_0', hcaHandles: 2, hcaObjects: 2 ** 32 - 1 },
  ]);
  assert.equal(pressureOf(''), undefined);
  assert.deepEqual(
    pageSizesOf(['hugetlb.2MB.usage_in_bytes', 'hugetlb.1GB.current', 'hugetlb.2MB.rsvd.usage_in_bytes']),
    ['1GB', '2MB'],
  );
});
