// Containers come, print, exec and go while the worker of their shim is killed every second.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Recording } from '../shim/events.ts';
import { shimPid } from '../shim/shims.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import { client, counting, guarded, killWorker, lines, servingWorker, withShims } from '../support/guard.ts';
import { ctr, image, runtime, until } from '../support/stack.ts';

/** Seconds; STASIS_TEST_STORM=600 for its full length. */
const SECONDS = Number(process.env['STASIS_TEST_STORM'] ?? 12);
/** Clients that run one container after the other. */
const CLIENTS = SECONDS >= 60 ? 20 : 5;
const KILL_EVERY_MS = 1000;
/**
 * So many in a row are killed in their start; then one is let serve, for which it may need more than a second here. After a fifth the
 * guard would refuse requests, as it has to.
 */
const MAX_EARLY = 3;
const POLL_MS = 20;

withShims(guarded);

test('every line once, every exit once, and in order, with the worker killed every second', async (t) => {
  const steady = uniqueName('storm');
  t.after(() => removeContainer(steady));
  await ctr('run', '-d', '--null-io', '--runtime', runtime, image, steady, '/bin/sleep', '100000');
  const guard = await shimPid(steady);
  const recording = await Recording.start(steady);
  t.after(() => recording.stop());
  let end = Date.now() + SECONDS * 1000;
  t.after(() => (end = 0)); // also where it fails before: nothing could be removed under the killer
  let kills = 0;
  let early = 0;
  const killer = (async () => {
    while (Date.now() < end) {
      const serving = await servingWorker();
      if (serving === undefined && early >= MAX_EARLY) {
        await sleep(POLL_MS);
        continue;
      }
      early = serving === undefined ? early + 1 : 0;
      await killWorker(guard);
      kills++;
      await sleep(KILL_EVERY_MS);
    }
  })();
  const ran: string[] = [];
  const one = async (): Promise<void> => {
    while (Date.now() < end) {
      const name = uniqueName('storm');
      t.after(() => removeContainer(name));
      const code = ran.push(name) % 100;
      const script = `${counting(40, '0.02')}; exit ${code}`;
      const run = client('run', '--rm', '--runtime', runtime, image, name, '/bin/sh', '-c', script);
      assert.deepEqual(await run, { out: lines(40), code }, name);
    }
  };
  let executed = 0;
  const execs = async (): Promise<void> => {
    for (let i = 0; Date.now() < end; i++) {
      executed++;
      const code = i % 100;
      const script = `${counting(20, '0.01')}; exit ${code}`;
      assert.deepEqual(
        await client('tasks', 'exec', '--exec-id', `x${i}`, steady, '/bin/sh', '-c', script),
        { out: lines(20), code },
        `exec x${i}`,
      );
    }
  };
  await Promise.all([killer, execs(), ...Array.from({ length: CLIENTS }, one)]);
  await until('the end of the last exec', () =>
    recording.events.some(({ topic, id }) => topic === '/tasks/exit' && id === `x${executed - 1}`)
      ? true
      : undefined,
  );
  for (let i = 0; i < executed; i++) {
    const events = recording.events.filter(({ id }) => id === `x${i}`);
    assert.deepEqual(
      events.map(({ topic, status }) => [topic, status]),
      [
        ['/tasks/exec-added', 0],
        ['/tasks/exec-started', 0],
        ['/tasks/exit', i % 100],
      ],
      `exec x${i}`,
    );
  }
  t.diagnostic(`${ran.length} containers, ${executed} execs, ${kills} workers killed`);
  for (const [at, name] of ran.entries()) {
    await until(`the last event of ${name}`, () =>
      recording.of(name).find(({ topic }) => topic === '/tasks/delete'),
    );
    const code = (at + 1) % 100;
    const events = recording.of(name).map(({ topic, id, status }) => [topic, id, status]);
    assert.deepEqual(
      events,
      [
        ['/tasks/create', '', 0],
        ['/tasks/start', '', 0],
        ['/tasks/exit', 'init', code],
        ['/tasks/delete', '', code],
      ],
      name,
    );
  }
  assert.equal(await shimPid(steady), guard);
});
