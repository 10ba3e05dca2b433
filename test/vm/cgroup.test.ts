// src/sys/cgroup* on a real cgroup of version 2. Containers are not needed for that: a folder and a process are enough.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metrics } from '../../src/proto/gen/containerd/cgroups_v2.ts';
import { cpuUsage } from '../../src/sys/cgroup-cpu.ts';
import { freezerOf } from '../../src/sys/cgroup-freezer.ts';
import { watchOom } from '../../src/sys/cgroup-oom.ts';
import { killCgroup, removeCgroup } from '../../src/sys/cgroup-remove.ts';
import { openStats } from '../../src/sys/cgroup-stats.ts';
import { cgroupPids, findCgroup, joinCgroup, type Cgroup } from '../../src/sys/cgroup.ts';
import { NotFound } from '../../src/errors.ts';
import { until } from '../system/support/stack.ts';

const path = `/stasis-vm-${process.pid}`;
const folder = `/sys/fs/cgroup${path}`;
const COUNT = 'my $n = 0; while (1) { $n++ }';
const EAT = 'my @eaten; push @eaten, "x" x 1048576 while 1';

suite('cgroup version 2', () => {
  const children: ChildProcess[] = [];

  /** A perl program in the cgroup. */
  async function start(script: string): Promise<{ child: ChildProcess; pid: number; cgroup: Cgroup }> {
    const child = spawn('perl', ['-e', `<STDIN>; ${script}`], { stdio: ['pipe', 'ignore', 'ignore'] });
    children.push(child);
    const { pid = assert.fail('perl does not start') } = child;
    await joinCgroup(path, pid);
    child.stdin?.end('go\n');
    return { child, pid, cgroup: await findCgroup(pid) };
  }

  const ended = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

  before(() => {
    for (const controller of ['cpu', 'memory', 'pids', 'io'])
      writeFileSync('/sys/fs/cgroup/cgroup.subtree_control', `+${controller}`);
    mkdirSync(folder);
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });
  after(async () => {
    if (existsSync(folder)) await removeCgroup({ version: 2, path, folders: new Map([['', folder]]) });
  });

  test('is found as the one folder of a process', async () => {
    const { cgroup, pid } = await start(COUNT);
    assert.deepEqual(cgroup, { version: 2, path, folders: new Map([['', folder]]) });
    assert.deepEqual(await cgroupPids(cgroup), [pid]);
  });

  test('a frozen process does not move, and a thawed one does', async () => {
    const { cgroup } = await start(COUNT);
    const freezer = freezerOf(cgroup);
    await freezer.freeze();
    assert.equal(await freezer.isFrozen(), true);
    const stood = await cpuUsage(cgroup);
    await sleep(200);
    assert.equal(await cpuUsage(cgroup), stood);
    await freezer.thaw();
    await until('the thaw', async () => ((await freezer.isFrozen()) ? undefined : true));
    await until('it to run on', async () => ((await cpuUsage(cgroup)) !== stood ? true : undefined));
  });

  test('a process that is stopped freezes too', async () => {
    const { cgroup, pid } = await start(COUNT);
    process.kill(pid, 'SIGSTOP');
    await freezerOf(cgroup).freeze();
    await freezerOf(cgroup).thaw();
  });

  test('figures are those of the cgroup, in containerd’s message, also when it is gone', async () => {
    const { cgroup } = await start(COUNT);
    writeFileSync(join(folder, 'memory.max'), String(64 << 20));
    await until('some processor time', async () =>
      ((await cpuUsage(cgroup)) ?? 0n) > 10_000_000n ? true : undefined,
    );
    const stats = openStats(cgroup);
    const { typeUrl, value } = await stats.read();
    const metrics = Metrics.decode(value);
    assert.equal(typeUrl, 'io.containerd.cgroups.v2.Metrics');
    assert.equal(metrics.pids?.current, 1n);
    assert.ok((metrics.cpu?.usageUsec ?? 0n) > 10_000n);
    assert.ok((metrics.memory?.usage ?? 0n) > 100_000n);
    assert.equal(metrics.memory?.usageLimit, BigInt(64 << 20));
    await killCgroup(cgroup);
    await removeCgroup(cgroup);
    assert.equal(Metrics.decode((await stats.read()).value).memory?.usageLimit, BigInt(64 << 20));
    stats.close();
    await assert.rejects(freezerOf(cgroup).freeze(), NotFound);
    assert.equal(await freezerOf(cgroup).isFrozen(), false);
    mkdirSync(folder);
  });

  test('a kill for want of memory is told at once, and counted', async () => {
    writeFileSync(join(folder, 'memory.max'), String(16 << 20));
    const { child, cgroup } = await start(`sleep 1; ${EAT}`);
    const stats = openStats(cgroup);
    let told = 0;
    const watch = watchOom(cgroup, stats, () => told++);
    await until('the kernel to end it', () => (ended(child) ? true : undefined));
    await until('the watch to tell', () => (told > 0 ? true : undefined));
    assert.equal(child.signalCode, 'SIGKILL');
    assert.ok(stats.oomKills() >= 1n);
    watch.check();
    assert.equal(told, 1, 'once for a kill');
    watch.close();
    stats.close();
    writeFileSync(join(folder, 'memory.max'), 'max');
  });

  test('frozen processes are killed, and leave no frozen cgroup, which runc would not delete', async () => {
    const { child, cgroup } = await start(COUNT);
    await freezerOf(cgroup).freeze();
    await killCgroup(cgroup);
    await until('the process to end', () => (ended(child) ? true : undefined));
    assert.equal(await freezerOf(cgroup).isFrozen(), false);
  });

  test('frozen processes and cgroups below go with the cgroup', async () => {
    const { child, pid, cgroup } = await start(COUNT);
    mkdirSync(join(folder, 'below'));
    writeFileSync(join(folder, 'below/cgroup.procs'), String(pid));
    await freezerOf(cgroup).freeze();
    await removeCgroup(cgroup, { timeoutMs: 60_000 });
    await until('the process to end', () => (ended(child) ? true : undefined));
    assert.equal(existsSync(folder), false);
    assert.equal(readFileSync('/proc/self/cgroup', 'utf8').includes(path), false);
    mkdirSync(folder);
  });
});
