// What is left, and what goes on, when the shim or containerd ends.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { findCgroup, foldersOf } from '../../../src/sys/cgroup.ts';
import { freezerOf } from '../../../src/sys/cgroup-freezer.ts';
import { endResidentShim } from '../support/process.ts';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { attempt, ctr, dev, image, importImage, runtime, stack, until } from '../support/stack.ts';
import { Recording } from './events.ts';
import { runDir, shimPid } from './shims.ts';

const LOOP = 'while true; do sleep 0.1; done';

before(importImage);

function container(t: TestContext): string {
  const name = uniqueName('death');
  t.after(() => removeContainer(name));
  return name;
}

const detached = (name: string, script: string) =>
  ctr('run', '-d', '--null-io', '--runtime', runtime, image, name, '/bin/sh', '-c', script);

const gone = (pid: number): true | undefined => (existsSync(`/proc/${pid}`) ? undefined : true);

test('a shim that is killed leaves nothing of its containers, frozen ones included, and their ends are told', async (t) => {
  const [plain, frozen] = [container(t), container(t)];
  await detached(plain, LOOP);
  await detached(frozen, `(sleep 600) & ${LOOP}`);
  await ctr('tasks', 'exec', '-d', '--exec-id', 'e', plain, '/bin/sleep', '600');
  const recording = await Recording.start(plain);
  t.after(() => recording.stop());
  const pids = await Promise.all(
    [plain, frozen].map(async (name) => (await pidOf(name)) ?? assert.fail(`${name} does not run`)),
  );
  const cgroups = await Promise.all(pids.map(findCgroup));
  // As a checkpoint leaves it whose shim dies in the middle.
  await freezerOf(cgroups[1] ?? assert.fail()).freeze();

  process.kill(await shimPid(plain), 'SIGKILL');

  for (const pid of pids) await until(`process ${pid} to end`, () => gone(pid), 10_000);
  const events = await recording.through('/tasks/delete');
  assert.deepEqual(
    events.map(({ topic, status }) => [topic, status]),
    [
      ['/tasks/exit', 137],
      ['/tasks/delete', 137],
    ],
  );
  await until('both to be cleared away', () => {
    const names = [plain, frozen];
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
    const left = [
      ...names.filter((name) => mounts.includes(`/${name}/rootfs`)).map((name) => `mount of ${name}`),
      ...cgroups.flatMap(foldersOf).filter((folder) => existsSync(folder)),
      ...names.map((name) => `${runDir}/tasks/default/${name}`).filter((path) => existsSync(path)),
      ...names.map((name) => `${runDir}/oci/default/${name}`).filter((path) => existsSync(path)),
    ];
    return left.length === 0 ? true : undefined;
  });
  const next = container(t);
  await detached(next, LOOP);
  assert.equal(await statusOf(next), 'RUNNING');
});

test('a killed shim of thirty containers leaves nothing of any of them, tells all their ends, and their names are free', async (t) => {
  const names = Array.from({ length: 30 }, () => container(t));
  await endResidentShim('SIGKILL');
  for (let i = 0; i < names.length; i += 5) {
    await Promise.all(names.slice(i, i + 5).map((name) => detached(name, LOOP)));
  }
  const first = names[0] ?? assert.fail();
  const pids = await Promise.all(
    names.map(async (name) => (await pidOf(name)) ?? assert.fail(`${name} does not run`)),
  );
  const cgroups = (await Promise.all(pids.map(findCgroup))).flatMap(foldersOf);
  const recording = await Recording.start('death');
  t.after(() => recording.stop());

  process.kill(await shimPid(first), 'SIGKILL');

  await until(
    'all ends to be told',
    () => {
      const ended = names.filter((name) =>
        recording.of(name).some(({ topic, status }) => topic === '/tasks/delete' && status === 137),
      );
      return ended.length === names.length ? true : undefined;
    },
    30_000,
  );
  const left = (): string[] => {
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
    const bundles = `${stack.state}/containerd/state/io.containerd.runtime.v2.task/default`;
    return [
      ...pids.filter((pid) => existsSync(`/proc/${pid}`)).map((pid) => `process ${pid}`),
      ...names.filter((name) => mounts.includes(`/${name}/rootfs`)).map((name) => `mount of ${name}`),
      ...cgroups.filter((folder) => existsSync(folder)),
      ...[`${runDir}/tasks/default`, `${runDir}/oci/default`, bundles].flatMap((folder) =>
        names.map((name) => `${folder}/${name}`).filter((path) => existsSync(path)),
      ),
    ];
  };
  await until('all to be cleared away', () => (left().length === 0 ? true : undefined), 30_000).catch(
    () => undefined,
  );
  assert.deepEqual(left(), []);
  for (const name of names.slice(0, 5)) {
    await ctr('tasks', 'start', '-d', '--null-io', name);
    assert.equal(await statusOf(name), 'RUNNING');
  }
});

test('twenty first starts at once end in one shim, and twenty tasks outlive containerd', async (t) => {
  const names = Array.from({ length: 20 }, () => container(t));
  await endResidentShim('SIGKILL');
  await Promise.all(names.map((name) => detached(name, LOOP)));
  const shims = new Set(await Promise.all(names.map(shimPid)));
  assert.equal(shims.size, 1);

  const containerd = Number(readFileSync(join(stack.state, 'containerd.pid'), 'utf8'));
  process.kill(containerd, 'SIGKILL');
  await until('containerd to be gone', () => gone(containerd));
  await dev('start', 'containerd');
  const began = performance.now();
  await until(
    'all to be listed as running',
    async () => {
      const listed = await attempt('ctr', ['tasks', 'ls']);
      const running = listed.stdout.split('\n').filter((line) => line.includes(' RUNNING'));
      return names.every((name) => running.some((line) => line.startsWith(`${name} `))) ? true : undefined;
    },
    5_000,
  );
  assert.ok(performance.now() - began < 5_000);
  assert.deepEqual(new Set(await Promise.all(names.map(shimPid))), shims);
  await Promise.all(names.map((name) => removeContainer(name)));
});

test('what ends while containerd is away keeps its exit status; output and the living are not lost', async (t) => {
  const [ends, lives] = [container(t), container(t)];
  const log = join(stack.state, 'data/tmp', `${lives}.log`);
  writeFileSync(log, '');
  await detached(ends, 'sleep 2; exit 9');
  const flags = ['--runtime', runtime, '--log-uri', `file://${log}`];
  await ctr('run', '-d', ...flags, image, lives, '/bin/sh', '-c', `sleep 2; echo meanwhile; ${LOOP}`);
  await dev('stop', 'containerd');
  await sleep(3_000);
  await dev('start', 'containerd');
  await until('the ended one', async () => ((await statusOf(ends)) === 'STOPPED' ? true : undefined));
  assert.match((await attempt('ctr', ['tasks', 'rm', ends])).stderr, /exit code 9/);
  assert.equal(readFileSync(log, 'utf8'), 'meanwhile\n');
  assert.equal((await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', lives, '/bin/true'])).exitCode, 0);
});
