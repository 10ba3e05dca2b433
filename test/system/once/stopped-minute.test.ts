// containerd is stopped for longer than its clients and its own deadlines wait, as in a slow upgrade.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { attempt, ctr, dev, image, importImage, runtime, stack, until } from '../support/stack.ts';

const AWAY_MS = 62_000;
/** Lines that are more than a pipe holds, so that nobody but the shim can have taken them. */
const LINES = 40_000;

const [talking, ending] = [uniqueName('minute'), uniqueName('minute-ending')] as const;
let folder: string;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/minute-'));
});
after(async () => {
  await removeContainer(talking);
  await removeContainer(ending);
  rmSync(folder, { recursive: true });
});

const logOf = (name: string): string => join(folder, `${name}.log`);

const start = (name: string, script: string) =>
  ctr(
    ...['run', '-d', '--runtime', runtime, '--snapshotter', 'stasis', '--log-uri', `file://${logOf(name)}`],
    ...[image, name, '/bin/sh', '-c', script],
  );

test('a minute without containerd costs no task, no exit code and no output', async () => {
  await start(talking, `sleep 5; seq ${LINES}; while :; do sleep 1; done`);
  await start(ending, 'sleep 20; echo over; exit 7');
  const pid = await pidOf(talking);
  await dev('stop', 'containerd');
  const stopped = performance.now();
  await sleep(AWAY_MS);
  await dev('start', 'containerd');
  assert.ok(performance.now() - stopped > 60_000);

  assert.equal(await statusOf(talking), 'RUNNING');
  assert.equal(await pidOf(talking), pid);
  const all = Array.from({ length: LINES }, (_, index) => `${index + 1}\n`).join('');
  await until('all of its output', () => (readFileSync(logOf(talking), 'utf8') === all ? true : undefined));
  assert.equal(await statusOf(ending), 'STOPPED');
  assert.equal(readFileSync(logOf(ending), 'utf8'), 'over\n');
  assert.match((await attempt('ctr', ['tasks', 'rm', ending])).stderr, /exit code 7/);
  // And it still does what it is told.
  assert.equal((await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', talking, 'true'])).exitCode, 0);
});
