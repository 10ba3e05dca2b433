import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reloads } from '../../../shim/service/reloads.ts';

/** The methods of one connection, each with whether it was taken for a restarted containerd's. */
async function heard(...methods: string[]): Promise<boolean[]> {
  const reloads = new Reloads();
  const connection = {};
  const answer = async (_: unknown, call: { connection: never }): Promise<boolean> =>
    reloads.isReload(call.connection);
  const names = ['create', 'connect', 'pids', 'state', 'start'];
  const tasks = reloads.watch(Object.fromEntries(names.map((name) => [name, answer])) as never);
  const results: boolean[] = [];
  for (const method of methods) {
    const handler = tasks[method as 'pids'] as unknown as typeof answer;
    results.push(await handler({}, { connection: connection as never }));
  }
  return results;
}

test('a restarted containerd calls Connect first of all, then Pids', async () => {
  assert.deepEqual(await heard('connect', 'pids', 'pids', 'connect', 'pids'), [
    true,
    true,
    false,
    false,
    false,
  ]);
  assert.deepEqual(await heard('create', 'connect', 'pids'), [false, false, false]);
});

test('a worker that hears the Connect of a Create first takes no later Pids for one', async () => {
  assert.deepEqual(await heard('connect', 'start', 'pids'), [true, false, false]);
  assert.deepEqual(await heard('connect', 'state', 'connect', 'pids'), [true, false, false, false]);
});
