// What containerd, its clients and containers see when the process that does a shim's work is killed, stands still, or does not start.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { mount } from '../../../src/sys/mount.ts';
import { ENDING } from '../../../src/sys/signals.ts';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import {
  client,
  counting,
  detached,
  guarded,
  killWorker,
  lines,
  LOOP,
  terminal,
  useConfig,
  withShims,
  workerPid,
} from '../support/guard.ts';
import { ended, signal } from '../support/process.ts';
import { MemoryShortage } from '../../parity/memory-shortage.ts';
import { attempt, ctr, dev, image, must, refused, runtime, stack, stasis, until } from '../support/stack.ts';
import { Recording } from './events.ts';
import { shimPid } from './shims.ts';

withShims(guarded);

/** Takes more memory than there is. */
const EAT = 'exec perl -e \'$x = "x" x (1 << 26); sleep 600\'';

function container(t: TestContext): string {
  const name = uniqueName('guard');
  t.after(() => removeContainer(name));
  return name;
}

test('a worker that is killed again and again costs no line of output, no exit and no event, and none is doubled', async (t) => {
  const [name, other] = [container(t), container(t)];
  await detached(other, LOOP);
  const guard = await shimPid(other);
  const recording = await Recording.start(name);
  t.after(() => recording.stop());
  const run = client(
    'run',
    '--runtime',
    runtime,
    image,
    name,
    '/bin/sh',
    '-c',
    `${counting(200, '0.02')}; exit 7`,
  );
  await until('the container to run', () => pidOf(name));
  const exec = client(
    'tasks',
    'exec',
    '--exec-id',
    'e',
    name,
    '/bin/sh',
    '-c',
    `${counting(100, '0.02')}; exit 3`,
  );
  for (let i = 0; i < 3; i++) {
    await sleep(900);
    await killWorker(guard);
    assert.ok(await pidOf(name), 'its state is answered, late');
  }
  assert.deepEqual(await exec, { out: lines(100), code: 3 });
  assert.deepEqual(await run, { out: lines(200), code: 7 });
  await ctr('tasks', 'rm', name).catch(() => undefined); // ctr run may have
  const events = await recording.through('/tasks/delete');
  assert.deepEqual(
    events.map(({ topic, id, status }) => [topic, id, status]),
    [
      ['/tasks/create', '', 0],
      ['/tasks/start', '', 0],
      ['/tasks/exec-added', 'e', 0],
      ['/tasks/exec-started', 'e', 0],
      ['/tasks/exit', 'e', 3],
      ['/tasks/exit', 'init', 7],
      ['/tasks/delete', '', 7],
    ],
  );
  assert.equal(await shimPid(other), guard, 'to clients it is the same shim');
});

test('a worker that is killed at any moment of a start does not let the client take that for the end of the output', async (t) => {
  const steady = container(t);
  await detached(steady, LOOP);
  const guard = await shimPid(steady);
  for (let after = 20; after <= 160; after += 20) {
    const name = container(t);
    const run = client(
      'run',
      '--rm',
      '--runtime',
      runtime,
      image,
      name,
      '/bin/sh',
      '-c',
      counting(20, '0.01'),
    );
    await sleep(after);
    await killWorker(guard);
    await sleep(after / 4);
    await killWorker(guard);
    assert.deepEqual(await run, { out: lines(20), code: 0 }, `killed after ${after} ms`);
  }
});

test('that a container is about to come ends nothing, whether or not there is a worker who could hear it', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  for (let kills = 0; kills < 3; kills++) {
    signal(await workerPid(guard), 'SIGKILL');
    // From before it is reaped until after the next one serves.
    const end = performance.now() + 500;
    while (performance.now() < end) {
      signal(guard, 'SIGURG');
      await setImmediate();
    }
  }
  assert.equal(await statusOf(name), 'RUNNING');
  assert.equal(await shimPid(name), guard);
});

test('that a worker was ended for want of memory is told', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const worker = await workerPid(await shimPid(name));
  const shortage = new MemoryShortage();
  t.after(() => shortage.close());
  shortage.admit(worker);
  await sleep(1200); // longer than the guard takes to see where it is
  const over = shortage.befall(worker);
  const exec = attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', name, '/bin/true']); // for which it needs memory
  await over;
  await ended(worker);
  await exec;
  await until('the reason', async () =>
    /SIGKILL by the kernel, for want of memory/.test(await must('stasis', ['shim', 'ls'])) ? true : undefined,
  );
  assert.equal(await statusOf(name), 'RUNNING');
});

test('a worker that stands still is replaced before containerd gives up what it asked', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  for (let stops = 0; stops < 3; stops++) {
    const worker = await workerPid(guard);
    signal(worker, 'SIGSTOP');
    assert.equal(await statusOf(name), 'RUNNING');
    await ended(worker);
    await sleep(stops * 200); // another instant between two questions
  }
});

test('what ends while the worker stands still is told once another has taken its place', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  const run = client(
    'tasks',
    'exec',
    '--exec-id',
    'e',
    name,
    '/bin/sh',
    '-c',
    'echo began; sleep 0.6; echo over; exit 5',
  );
  await sleep(500);
  const worker = await workerPid(guard);
  signal(worker, 'SIGSTOP');
  assert.deepEqual(await run, { out: 'began\nover\n', code: 5 });
  await ended(worker);
  assert.equal(await statusOf(name), 'RUNNING');
});

test('containers run on while no worker starts; requests are refused with the reason, and answered once one does', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  const pid = await pidOf(name);
  const waiting = client('tasks', 'exec', '--exec-id', 'e', name, '/bin/sh', '-c', 'sleep 2; exit 4');
  await sleep(500);
  useConfig('nonsense');
  t.after(() => useConfig(guarded));
  await killWorker(guard);
  const refusal = await until('a refusal', async () => {
    const { stderr } = await attempt('ctr', ['tasks', 'exec', '--exec-id', 'f', name, '/bin/true']);
    return stderr.includes('the containers run on') ? stderr : undefined;
  });
  assert.match(refusal, /worker has ended \(.*not valid TOML.*times in a row/);
  // Nor is it taken for a container without a task.
  assert.match(await ctr('tasks', 'ls'), new RegExp(`^${name} +0 +UNKNOWN`, 'm'));
  const removed = await attempt('ctr', ['containers', 'rm', name]);
  assert.match(removed.stderr, /cannot delete a non stopped container/);
  assert.match((await attempt('ctr', ['tasks', 'ps', name])).stderr, /the containers run on/);
  const why = /does not answer: its guard \(pid \d+\) has no worker: .*not valid TOML/;
  const { stdout, stderr } = await attempt('stasis', ['ls', name]);
  assert.match(stdout, new RegExp(`^${name} +unknown`, 'm'));
  assert.match(stderr, why);
  assert.match(await stasis('inspect', name), why);
  assert.match(await refused(7, 'checkpoint', name), why);
  useConfig(guarded);
  assert.equal((await waiting).code, 4);
  assert.equal(await pidOf(name), pid);
});

test('containerd may be killed and started anew while no worker starts: every task is taken up, and an exit meanwhile is told once', async (t) => {
  const names = Array.from({ length: 6 }, () => container(t));
  const [ending = '', ...others] = names;
  await detached(ending, 'trap "exit 9" TERM; while true; do sleep 0.1; done');
  for (const name of others) await detached(name, LOOP);
  const guard = await shimPid(ending);
  const pids = await Promise.all(names.map((name) => pidOf(name)));
  useConfig('nonsense');
  t.after(() => useConfig(guarded));
  await killWorker(guard);
  await until('requests to be refused', async () => {
    const { stderr } = await attempt('ctr', ['tasks', 'exec', '--exec-id', 'f', ending, '/bin/true']);
    return stderr.includes('the containers run on') ? true : undefined;
  });
  await dev('stop', 'containerd');
  const pid = pids[0] ?? assert.fail(`${ending} does not run`);
  signal(pid, 'SIGTERM');
  await ended(pid);
  const began = performance.now();
  await dev('start', 'containerd');
  assert.ok(performance.now() - began < 5000, 'no task was waited for');
  const recording = await Recording.start(ending);
  t.after(() => recording.stop());
  useConfig(guarded);
  await until('the end to be told', () => recording.events.find(({ topic }) => topic === '/tasks/exit'));
  for (const [i, name] of others.entries()) {
    assert.equal(await statusOf(name), 'RUNNING');
    assert.equal(await pidOf(name), pids[i + 1]);
  }
  assert.equal(await statusOf(ending), 'STOPPED');
  await ctr('tasks', 'rm', ending).catch(() => undefined); // which answers with the exit code
  const events = await recording.through('/tasks/delete');
  assert.deepEqual(
    events.map(({ topic, status }) => [topic, status]),
    [
      ['/tasks/exit', 9],
      ['/tasks/delete', 9],
    ],
  );
});

test('containerd may be started anew while workers come and go', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  const pid = await pidOf(name);
  let goesOn = true;
  const restarted = dev('restart', 'containerd').finally(() => (goesOn = false));
  while (goesOn) {
    await killWorker(guard);
    await shimPid(name); // which the next one answers
    await sleep(200);
  }
  await restarted;
  assert.equal(await pidOf(name), pid);
  assert.equal(await ctr('tasks', 'exec', '--exec-id', 'e', name, '/bin/echo', 'here'), 'here\n');
});

test('a terminal goes on under the next worker, input included', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  const exec = terminal(
    `ctr tasks exec -t --exec-id e ${name} /bin/sh -c 'read a; echo got-$a; read b; echo got-$b; exit 6'`,
  );
  exec.type('one\n');
  await exec.says('got-one');
  await killWorker(guard);
  exec.type('two\n');
  await exec.says('got-two');
  assert.equal(await exec.over, 6);
});

test('a kill for want of memory is told once, whoever looks for it again', async (t) => {
  const name = container(t);
  await detached(name, LOOP, '--memory-limit', '16777216');
  const guard = await shimPid(name);
  const recording = await Recording.start(name);
  t.after(() => recording.stop());
  await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', name, '/bin/sh', '-c', EAT]);
  await until('it to be told', () => recording.events.find(({ topic }) => topic === '/tasks/oom'));
  await killWorker(guard);
  assert.ok(await pidOf(name));
  await ctr('tasks', 'kill', '-s', 'KILL', name);
  await until('the end', () =>
    recording.events.find(({ topic, id }) => topic === '/tasks/exit' && id === 'init'),
  );
  assert.equal(recording.events.filter(({ topic }) => topic === '/tasks/oom').length, 1);
});

test('what a terminal shows while no worker is there reaches the client before the end does', async (t) => {
  const [steady, name] = [container(t), container(t)];
  await detached(steady, LOOP);
  const guard = await shimPid(steady);
  const run = terminal(
    `ctr run --rm -t --runtime ${runtime} ${image} ${name} /bin/sh -c 'read a; sleep 0.2; echo got-$a; exit 6'`,
  );
  const pid = await until('the container to run', () => pidOf(name));
  run.type('one\n');
  await run.says('one');
  const worker = await workerPid(guard);
  signal(worker, 'SIGSTOP');
  await ended(pid);
  signal(worker, 'SIGKILL');
  assert.equal(await run.over, 6);
  await run.says('got-one');
});

test('a guard that is told to leave does so although its worker ends before it has heard of that, and not while there are containers', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  signal(guard, 'SIGTERM');
  assert.equal(await statusOf(name), 'RUNNING');
  await removeContainer(name);
  await killWorker(guard);
  const worker = await workerPid(guard);
  await sleep(500); // it would leave by then
  signal(worker, 'SIGSTOP');
  signal(guard, 'SIGTERM');
  await sleep(50);
  signal(worker, 'SIGKILL');
  await ended(guard);
});

test('signals that nobody means to end all containers by do not end the guard', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  for (const one of ENDING) signal(guard, one);
  assert.equal(await ctr('tasks', 'exec', '--exec-id', 'e', name, '/bin/echo', 'here'), 'here\n');
  assert.equal(await shimPid(name), guard);
});

test('how a task ended while no worker was there is told also when the guard is killed then', async (t) => {
  const name = container(t);
  await detached(name, `trap 'exit 5' TERM; ${LOOP}`);
  const [guard, pid] = [await shimPid(name), await pidOf(name)];
  const recording = await Recording.start(name);
  t.after(() => recording.stop());
  assert.ok(pid !== undefined, `${name} runs`);
  signal(await workerPid(guard), 'SIGSTOP');
  signal(pid, 'SIGTERM');
  await ended(pid);
  signal(guard, 'SIGKILL');
  const events = await recording.through('/tasks/exit');
  assert.equal(events.at(-1)?.status, 5);
});

test('a killed guard takes its worker along, and its containers are cleared away as those of any shim', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const guard = await shimPid(name);
  const [worker, pid] = [await workerPid(guard), await pidOf(name)];
  signal(guard, 'SIGKILL');
  await ended(worker);
  await ended(pid ?? assert.fail());
  const next = container(t);
  await detached(next, LOOP);
  assert.equal(await statusOf(next), 'RUNNING');
});

test('what a worker had mounted for a restore, and was killed over, goes with the task', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const tasks = join(stack.state, 'containerd/state/io.containerd.runtime.v2.task/default');
  const left = join(tasks, name, 'criu/stasis-tmpfs-0');
  mkdirSync(left, { recursive: true });
  await mount({ type: 'tmpfs', source: 'left', target: left, options: [] });
  await killWorker(await shimPid(name));
  await ctr('tasks', 'rm', '-f', name);
  assert.deepEqual(
    readdirSync(tasks).filter((folder) => folder.includes(name)),
    [],
  );
  await ctr('containers', 'rm', name);
  await detached(name, LOOP);
  assert.equal(await statusOf(name), 'RUNNING');
});
