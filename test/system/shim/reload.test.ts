// containerd is killed under many containers, and started again.
import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { Client } from '../../../ttrpc/index.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import { slowness } from '../support/slowness.ts';
import { attempt, ctr, dev, image, importImage, must, runtime, stack, until } from '../support/stack.ts';
import { shimSocket } from './shims.ts';

/** Containers; a hundred take some minutes on a slow machine: STASIS_TEST_RELOAD=100. */
const COUNT = Number(process.env['STASIS_TEST_RELOAD'] ?? 12);
const AT_ONCE = 8;
const LIMIT_MS = 5000;

/** Waits for a word without costing anything, says it, and ends with 9. */
const SCRIPT = 'mkfifo /word; read word </word; echo "$word"; exit 9';

const names = Array.from({ length: COUNT }, () => uniqueName('reload'));
let folder: string;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/reload-'));
});
after(async () => {
  await inTurn(removeContainer);
  rmSync(folder, { recursive: true });
});

/** Some at a time, as clients do. */
async function inTurn(work: (name: string) => Promise<void>): Promise<void> {
  const left = [...names];
  const one = async (): Promise<void> => {
    for (let name = left.shift(); name !== undefined; name = left.shift()) await work(name);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

interface Task {
  readonly pid: number;
  readonly status: string;
}

async function tasks(): Promise<Map<string, Task>> {
  const rows = (await ctr('tasks', 'ls')).split('\n').map((line) => line.trim().split(/\s+/));
  return new Map(rows.map(([name = '', pid, status = '']) => [name, { pid: Number(pid), status }]));
}

const logOf = (name: string): string => join(folder, `${name}.log`);

function say(pid: number, word: string): void {
  const fifo = openSync(`/proc/${pid}/root/word`, 'w');
  writeSync(fifo, `${word}\n`);
  closeSync(fifo);
}

const said = (name: string): Promise<string> =>
  until(`the output of ${name}`, () => readFileSync(logOf(name), 'utf8') || undefined);

async function killContainerd(): Promise<void> {
  const pid = Number(readFileSync(join(stack.state, 'containerd.pid'), 'utf8'));
  process.kill(pid, 'SIGKILL');
  await until('containerd to be gone', () => (existsSync(`/proc/${pid}`) ? undefined : true));
}

/** What a containerd that starts asks of one shim, over a connection of its own. */
async function askedAgain(name: string): Promise<readonly [number, number[]]> {
  const client = await Client.connect(shimSocket(name));
  try {
    const shim = client.service(TaskDefinition);
    const { taskPid } = await shim.connect({ id: name });
    return [taskPid, (await shim.pids({ id: name })).processes.map(({ pid }) => pid)];
  } finally {
    client.close();
  }
}

test(`${COUNT} tasks answer at once, and keep their exit codes and output when containerd is killed`, async (t) => {
  await inTurn(async (name) => {
    const flags = ['--runtime', runtime, '--snapshotter', 'overlayfs', '--log-uri', `file://${logOf(name)}`];
    await ctr('run', '-d', ...flags, image, name, '/bin/sh', '-c', SCRIPT);
  });
  const started = await tasks();
  const pidOf = (name: string): number => started.get(name)?.pid ?? assert.fail(`${name} has no task`);
  for (const name of names) {
    await until(`the script of ${name}`, () =>
      existsSync(`/proc/${pidOf(name)}/root/word`) ? true : undefined,
    );
  }

  const before = performance.now();
  const answers = await Promise.all(names.map(askedAgain));
  const answered = performance.now() - before;
  assert.deepEqual(
    answers,
    names.map((name) => [pidOf(name), [pidOf(name)]]),
  );
  assert.ok(answered < LIMIT_MS * slowness, `${answered} ms for all`);

  await killContainerd();
  const [ending, living] = [names.filter((_, i) => i % 3 === 0), names.filter((_, i) => i % 3 !== 0)];
  for (const name of ending) say(pidOf(name), 'away');
  for (const name of ending) assert.equal(await said(name), 'away\n');

  const restart = performance.now();
  await dev('start', 'containerd');
  const found = await tasks();
  const reloaded = performance.now() - restart;
  t.diagnostic(
    `asked at once: ${answered.toFixed(0)} ms; containerd started, all listed: ${reloaded.toFixed(0)} ms`,
  );
  for (const name of names) {
    const status = ending.includes(name) ? 'STOPPED' : 'RUNNING';
    assert.deepEqual([name, found.get(name)], [name, { pid: pidOf(name), status }]);
  }
  assert.ok(reloaded < LIMIT_MS * slowness, `${reloaded} ms for all`);

  for (const name of living) say(pidOf(name), 'back');
  for (const name of living) assert.equal(await said(name), 'back\n');
  await inTurn(async (name) => {
    await until(`the end of ${name}`, async () =>
      (await must('ctr', ['tasks', 'ls']))
        .split('\n')
        .some((line) => /STOPPED/.test(line) && line.startsWith(`${name} `))
        ? true
        : undefined,
    );
    assert.match((await attempt('ctr', ['tasks', 'rm', name])).stderr, /exit code 9/);
  });
});

test('a task whose deletion containerd did not live to see is not there afterwards, and can be made anew', async (t) => {
  const name = uniqueName('reload-deleted');
  t.after(() => removeContainer(name));
  const run = ['run', '-d', '--runtime', runtime, '--snapshotter', 'overlayfs', image, name];
  await ctr(...run, '/bin/sh', '-c', 'sleep 1000');
  // Keeps the shared shim alive, whose connection would end with it.
  const other = uniqueName('reload-other');
  t.after(() => removeContainer(other));
  await ctr(...run.slice(0, -1), other, '/bin/sh', '-c', 'sleep 1000');

  const client = await Client.connect(shimSocket(name));
  t.after(() => client.close());
  await killContainerd();
  const shim = client.service(TaskDefinition);
  await shim.kill({ id: name, execId: '', signal: 9, all: true });
  await shim.wait({ id: name, execId: '' });
  await shim.delete({ id: name, execId: '' });
  await dev('start', 'containerd');

  assert.deepEqual((await tasks()).get(name), undefined);
  assert.equal((await tasks()).get(other)?.status, 'RUNNING');
  await ctr('tasks', 'start', '-d', name);
  assert.equal((await tasks()).get(name)?.status, 'RUNNING');
});
