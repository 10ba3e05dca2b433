import assert from 'node:assert/strict';
import { statusOf, uniqueName } from './container.ts';
import { slowness } from './slowness.ts';
import { attempt, ctr, image, runtime } from './stack.ts';

/** A running container is asked, entered, paused and resumed, all within seconds. What needs no disk. */
export async function assertServed(name: string): Promise<void> {
  const began = performance.now();
  const done = await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', name, '/bin/echo', 'served']);
  assert.deepEqual([done.stdout, done.exitCode], ['served\n', 0], done.stderr);
  assert.match(await ctr('tasks', 'metrics', name), /pids\.current/);
  assert.match(await ctr('tasks', 'ps', name), /\d/);
  assert.equal(await statusOf(name), 'RUNNING');
  await ctr('tasks', 'pause', name);
  await ctr('tasks', 'resume', name);
  const ms = performance.now() - began;
  assert.ok(ms < 5000 * slowness, `${Math.round(ms)} ms`);
}

/** A new container is made, and runs. */
export async function assertNewOnesAreMade(): Promise<void> {
  const args = ['run', '--rm', '--runtime', runtime, image, uniqueName('new'), '/bin/echo', 'new'];
  const run = await attempt('ctr', args);
  assert.deepEqual([run.stdout, run.exitCode], ['new\n', 0], run.stderr);
}
