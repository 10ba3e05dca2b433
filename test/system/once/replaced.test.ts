// Workers and guards of shims are replaced by other versions while containers run.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  inside,
  pidOf,
  progress,
  removeAll,
  startWriter,
  statusOf,
  uniqueName,
} from '../support/container.ts';
import { startPython } from '../support/debian.ts';
import { fillingOf, goOn, removeSlow, restoreHeld, watchedMemory } from '../support/filling.ts';
import {
  client,
  counting,
  detached,
  guarded,
  killWorker,
  lines,
  LOOP,
  terminal,
  withShims,
  workerPid,
} from '../support/guard.ts';
import { ended, signal } from '../support/process.ts';
import { Registry } from '../support/registry.ts';
import { slowness } from '../support/slowness.ts';
import { attempt, ctr, dev, image, must, readIfThere, runtime, stack, until } from '../support/stack.ts';
import { Recording } from '../shim/events.ts';
import { runDir } from '../shim/shims.ts';
import { install, shimOf } from '../shim/versions.ts';

withShims(guarded, '1.0.0-first');

function container(t: TestContext): string {
  const name = uniqueName('replaced');
  t.after(() => removeAll(name));
  return name;
}

interface ShimView {
  readonly pid: number;
  readonly guard: { readonly version: string; readonly ends: readonly { readonly why: string }[] } | null;
}

const shims = async (): Promise<readonly ShimView[]> =>
  (JSON.parse(await must('stasis', ['shim', 'ls', '--json'])) as { shims: ShimView[] }).shims;
const workerSockets = (): string[] => readdirSync(join(runDir, 's')).filter((name) => /^[wx]/.test(name));
const upgrade = (): Promise<string> => must('stasis', ['shim', 'upgrade']);

test('a worker is replaced under output and an exec: nothing is lost, doubled or cut off', async (t) => {
  const [name, other] = [container(t), container(t)];
  await detached(other, LOOP);
  const { pid: guard } = await shimOf(other);
  const recording = await Recording.start(name);
  t.after(() => recording.stop());
  const script = `${counting(150, '0.02')}; exit 7`;
  const run = client('run', '--runtime', runtime, image, name, '/bin/sh', '-c', script);
  await until('the container to run', () => pidOf(name));
  const exec = client(
    'tasks',
    'exec',
    '--exec-id',
    'e',
    name,
    '/bin/sh',
    '-c',
    `${counting(80, '0.02')}; exit 3`,
  );
  await until('the exec', async () => ((await ctr('tasks', 'ps', name)).includes('e') ? true : undefined));
  const sockets = workerSockets();
  for (const version of ['2.0.0-second', '1.5.0-older']) {
    const before = await workerPid(guard);
    install(version);
    assert.match(await upgrade(), new RegExp(`: .* → ${version} \\(.*\\), \\d+ ms\n$`));
    assert.deepEqual(await shimOf(other), { pid: guard, version });
    assert.notEqual(await workerPid(guard), before);
    const [own] = (await shims()).filter(({ pid }) => pid === guard);
    assert.equal(own?.guard?.version.split(' ')[0], version, 'the guard as well, in the same process');
    await killWorker(guard); // whose parent is another program now
    assert.deepEqual(await shimOf(other), { pid: guard, version });
    assert.equal(workerSockets().length, sockets.length, 'none is left of those that were replaced');
  }
  const [own] = (await shims()).filter(({ pid }) => pid === guard);
  assert.deepEqual(
    own?.guard?.ends.map(({ why }) => why),
    ['SIGKILL', 'SIGKILL'],
    'one of them under the program before this one',
  );
  assert.deepEqual(await exec, { out: lines(80), code: 3 });
  assert.deepEqual(await run, { out: lines(150), code: 7 });
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
});

test('a version that does not start, does not take up or does not answer is given up for the one before', async (t) => {
  const name = container(t);
  install('1.0.0-first');
  await detached(name, LOOP);
  await upgrade().catch(() => undefined);
  const was = await shimOf(name);
  const worker = await workerPid(was.pid);
  const ended = client('tasks', 'exec', '--exec-id', 'e', name, '/bin/sh', '-c', 'sleep 1; exit 5');
  const broken: [string, string, RegExp][] = [
    ['no program', 'throw new Error("broken");\n', /broken/],
    ['a hello, and no more', '', /has ended/],
  ];
  for (const [what, start, why] of broken) {
    install('9.0.0-broken', (text, file) => {
      if (file !== 'shim.mjs') return text;
      return start === ''
        ? text.replace('await takeUpAll(', 'process.exit(7); await takeUpAll(')
        : text.replace('\n', `\n${start}`);
    });
    const { exitCode, stderr } = await attempt('stasis', ['shim', 'upgrade']);
    assert.equal(exitCode, 7, `${what}: ${stderr}`);
    assert.match(stderr, why, what);
    assert.match(stderr, /run on under the version before/, what);
    assert.deepEqual(await shimOf(name), was, what);
    assert.equal(await workerPid(was.pid), worker, what);
    assert.equal(await ctr('tasks', 'exec', '--exec-id', 'f', name, '/bin/echo', 'here'), 'here\n', what);
  }
  assert.equal((await ended).code, 5, 'an end that came meanwhile is told');
  install('2.0.0-second');
});

test('a version whose worker hangs as it starts has requests refused within seconds, with the reason, while containers run on', async (t) => {
  const name = container(t);
  install('1.0.0-first');
  await detached(name, LOOP);
  const { pid: guard } = await shimOf(name);
  t.after(() => install('2.0.0-second'));
  install('9.0.0-hung', (text, file) =>
    file === 'shim.mjs'
      ? text.replace(
          '\n',
          "\nif (process.argv[2] === 'worker') await new Promise(() => setInterval(() => 0, 1e9));\n",
        )
      : text,
  );
  await killWorker(guard);
  const began = performance.now();
  const exec = ['tasks', 'exec', '--exec-id', 'e', name, '/bin/echo', 'here'];
  const { stderr } = await attempt('ctr', exec);
  assert.match(
    stderr,
    /has had no worker for 10 s, as the next one has not loaded its program; the containers run on/,
  );
  assert.ok(performance.now() - began < 15_000 * slowness);
  assert.match(await must('stasis', ['shim', 'ls']), /it has done nothing for 5 s, and had not loaded/);
  install('2.0.0-second');
  await until('a worker', async () => ((await attempt('ctr', exec)).stdout === 'here\n' ? true : undefined));
});

test('a create that is refused as nothing of the shim starts any more leaves nothing that is in the way of the next', async (t) => {
  const [steady, name] = [container(t), container(t)];
  install('1.0.0-first');
  await detached(steady, LOOP);
  const { pid: guard } = await shimOf(steady);
  t.after(() => install('2.0.0-second'));
  install('9.0.0-broken', (text, file) =>
    file === 'shim.mjs' ? 'throw new Error("broken", { cause: new Error("inner") });\n' : text,
  );
  await killWorker(guard);
  const exec = ['tasks', 'exec', '--exec-id', 'e', steady, '/bin/true'];
  await until('requests to be refused', async () =>
    (await attempt('ctr', exec)).stderr.includes('the containers run on') ? true : undefined,
  );
  await assert.rejects(
    detached(name, LOOP),
    /worker has ended \(exit code 1: Error: broken\), \d+ times in a row/,
  );
  const bundle = join(stack.state, 'containerd/state/io.containerd.runtime.v2.task/default', name);
  await until('the bundle to go', () => (existsSync(bundle) ? undefined : true));
  await removeAll(name);
  install('2.0.0-second');
  await until('a worker', async () => ((await attempt('ctr', exec)).exitCode === 0 ? true : undefined));
  await detached(name, LOOP);
  assert.equal(await statusOf(name), 'RUNNING');
});

test('a guard whose successor does not start stays, descriptors do not add up, and a killed one takes its worker along as ever', async (t) => {
  const name = container(t);
  await detached(name, LOOP);
  const { pid } = await shimOf(name);
  await upgrade().catch(() => undefined);
  const open = (): number => readdirSync(`/proc/${pid}/fd`).length;
  const before = await until('descriptors', open);
  for (let n = 0; n < 3; n++) {
    install(`5.0.${n}`);
    await upgrade();
  }
  await until('as many descriptors as before', () => (open() <= before ? true : undefined));
  install('6.0.0-guardless', (text, file) =>
    file === 'guard.mjs' ? 'process.stderr.write("no guard here"); process.exit(1);\n' : text,
  );
  assert.match(await upgrade(), /→ 6\.0\.0-guardless .*the guard stays 5\.0\.2 .*no guard here/);
  assert.deepEqual(await shimOf(name), { pid, version: '6.0.0-guardless' });
  const [worker, own] = [await workerPid(pid), await pidOf(name)];
  signal(pid, 'SIGKILL');
  await ended(worker);
  await ended(own ?? assert.fail('it did not run'));
  await until('the task to be cleared away', async () =>
    (await statusOf(name)) === undefined ? true : undefined,
  );
});

test('a worker and a guard are replaced under a client that is attached to a terminal', async (t) => {
  const name = container(t);
  install('1.0.0-first');
  const script = 'read a; echo got-$a; read b; echo got-$b; exit 6';
  await terminal(`ctr run -d -t --runtime ${runtime} ${image} ${name} /bin/sh -c '${script}'`).over;
  const { pid } = await shimOf(name);
  const attached = terminal(`ctr tasks attach ${name}`);
  attached.type('one\n');
  await attached.says('got-one');
  install(`2.0.0-${Date.now()}`);
  const before = await workerPid(pid);
  await upgrade();
  assert.notEqual(await workerPid(pid), before);
  attached.type('two\n');
  await attached.says('got-two');
  assert.equal(await attached.over, 6);
});

test('a worker is not replaced in the middle of a checkpoint, but after it', async (t) => {
  const name = container(t);
  install('1.0.0-first');
  await detached(name, LOOP);
  install(`3.0.0-${Date.now()}`);
  const taken = must('stasis', ['checkpoint', name, '--name', 'c', '--require-memory']);
  await sleep(30);
  await upgrade();
  await taken;
  assert.equal(await statusOf(name), 'RUNNING');
});

test('nor in the middle of a restore: memory and disk are of one instant at whatever moment it is asked for', async (t) => {
  const name = container(t);
  await startWriter(name);
  await must('stasis', ['checkpoint', name, '--name', 'c', '--require-memory']);
  for (let after = 0; after <= 150; after += 50) {
    install(`4.0.${after}`);
    const restored = must('stasis', ['restore', name, '--snapshot', 'c', '--eager', '--require-memory']);
    await sleep(after);
    const [said] = await Promise.all([upgrade(), restored]);
    assert.match(said, new RegExp(`→ 4\\.0\\.${after} `), 'it waits, and is not given up');
    await progress(name, 3);
  }
});

test('nor while memory comes in: the upgrade waits until all of it is there', async (t) => {
  const [name, copy] = [container(t), container(t)];
  t.after(removeSlow);
  install('1.0.0-first');
  await startPython(name, watchedMemory(96), [], 'check_all()');
  await must('stasis', ['checkpoint', name, '--name', 'c', '--require-memory']);
  await restoreHeld(copy, () =>
    must('stasis', ['restore', name, '--snapshot', 'c', '--as', copy, '--lazy', '--require-memory']),
  );
  const { pid } = await shimOf(copy);
  const before = await workerPid(pid);
  install(`5.0.0-${Date.now()}`);
  const upgraded = upgrade();
  await sleep(500);
  assert.equal(await workerPid(pid), before);
  assert.notEqual(await fillingOf(copy), null);
  assert.equal(await statusOf(copy), 'RUNNING', 'questions are answered meanwhile');
  goOn();
  await upgraded;
  assert.notEqual(await workerPid(pid), before);
  assert.equal(await fillingOf(copy), null);
  writeFileSync(await inside(copy, '/check'), '');
  const checked = await inside(copy, '/checked');
  assert.equal(await until('it to look at its memory', () => readIfThere(checked) || undefined), 'good');
});

test('a pull goes on while workers, guards and stasisd are replaced by a newer version and an older one, and its image is whole', async (t) => {
  const name = container(t);
  install('1.0.0-first');
  await detached(name, LOOP);
  const { pid } = await shimOf(name);
  const folder = mkdtempSync(join(stack.state, 'data/tmp/pull-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'layer'));
  const text = randomBytes(4 << 20).toString('hex'); // of no image that is there already
  writeFileSync(join(folder, 'layer/text'), text);
  const builder = join(stack.project, 'scripts/lib/image');
  await must(builder, ['--layers', '8', '--layer', join(folder, 'layer'), join(folder, 'image.tar')]);
  await must('tar', ['-xf', join(folder, 'image.tar'), '-C', folder]);
  const registry = await Registry.start(folder);
  t.after(() => registry.close());
  const pulled = registry.name('stasis/pulled:latest');
  t.after(() => attempt('ctr', ['images', 'rm', '--sync', pulled]));
  const pull = ctr('images', 'pull', '--plain-http', '--snapshotter', 'stasis', pulled);
  await registry.asked;
  install('2.0.0-second');
  await upgrade();
  await dev('restart', 'stasisd');
  assert.deepEqual(await shimOf(name), { pid, version: '2.0.0-second' });
  registry.give(); // and from here on it is unpacked
  install('1.5.0-older');
  await Promise.all([pull, upgrade()]);
  assert.deepEqual(await shimOf(name), { pid, version: '1.5.0-older' });
  const copy = container(t);
  const sum = ['sha256sum', '/text', '/layer/8'];
  const run = ['run', '--rm', '--runtime', runtime, '--snapshotter', 'stasis', pulled, copy, ...sum];
  assert.match(await ctr(...run), new RegExp(`^${createHash('sha256').update(text).digest('hex')} `));
  assert.equal(await statusOf(name), 'RUNNING');
});
