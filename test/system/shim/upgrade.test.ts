// The shim's files are replaced while its containers run.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pidOf, removeAll, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { configWith, withShims } from '../support/guard.ts';
import { ended, endResidentShim } from '../support/process.ts';
import { attempt, ctr, dev, image, must, runtime, stack, until } from '../support/stack.ts';
import { runDir } from './shims.ts';
import { install, launcher, shimOf } from './versions.ts';

const IDLE_SECONDS = 1;
const LOOP = 'while true; do echo tick; sleep 0.1; done';

withShims(configWith(`idle_timeout = ${IDLE_SECONDS}`), '1.0.0-first');

async function start(t: TestContext, ...flags: string[]): Promise<string> {
  const name = uniqueName('upgrade');
  t.after(() => removeAll(name));
  await ctr('run', '-d', '--runtime', runtime, ...flags, image, name, '/bin/sh', '-c', LOOP);
  return name;
}

const ticks = (log: string): number => readFileSync(log, 'utf8').split('\n').length;

async function more(log: string): Promise<void> {
  const before = ticks(log);
  await until('more output', () => (ticks(log) > before + 2 ? true : undefined));
}

test('a shim goes on with its old program behind the new launcher, and the next shim is of the new', async (t) => {
  const log = join(stack.state, 'data/tmp', `${uniqueName('upgrade')}.log`);
  const [early, dumped] = [await start(t, '--log-uri', `file://${log}`), await start(t, '--null-io')];
  const first = await shimOf(early);
  assert.equal(first.version, '1.0.0-first');
  const pid = await pidOf(early);

  install('2.0.0-second');
  assert.match(await must(launcher, ['-v']), /2\.0\.0-second/);
  const late = await start(t, '--null-io');
  for (const name of [early, dumped, late]) assert.deepEqual(await shimOf(name), first);
  await more(log);
  const executed = await attempt('ctr', [
    'tasks',
    'exec',
    '--exec-id',
    'e',
    early,
    '/bin/sh',
    '-c',
    'exit 3',
  ]);
  assert.equal(executed.exitCode, 3);
  // CRIU comes by way of a file that was replaced as well.
  await must('stasis', ['checkpoint', dumped, '--name', 'c', '--require-memory']);
  await must('stasis', ['restore', dumped, '--require-memory']);
  assert.equal(await statusOf(dumped), 'RUNNING');

  await dev('restart', 'containerd');
  assert.equal(await pidOf(early), pid);
  await more(log);

  await ctr('tasks', 'kill', '-s', 'SIGKILL', early);
  await until('its end', async () => ((await statusOf(early)) === 'STOPPED' ? true : undefined));
  assert.match((await attempt('ctr', ['tasks', 'rm', early])).stderr, /exit code 137/);
  await removeContainer(early, dumped, late);
  await ended(first.pid);
  const last = await start(t, '--null-io');
  assert.equal((await shimOf(last)).version, '2.0.0-second');
});

test('the new program clears away what an old shim left that was killed', async (t) => {
  await endResidentShim('SIGTERM');
  install('3.0.0-third');
  const name = await start(t, '--null-io');
  const [pid, shim] = [await pidOf(name), await shimOf(name)];
  assert.equal(shim.version, '3.0.0-third');
  install('4.0.0-fourth');
  process.kill(shim.pid, 'SIGKILL');
  await ended(pid ?? assert.fail(`${name} does not run`));
  await until('the task to be forgotten', async () =>
    (await statusOf(name)) === undefined ? true : undefined,
  );
  await until('its files to go', () => (existsSync(`${runDir}/tasks/default/${name}`) ? undefined : true));
  assert.equal((await shimOf(await start(t, '--null-io'))).version, '4.0.0-fourth');
});
