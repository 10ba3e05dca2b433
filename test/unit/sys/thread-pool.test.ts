import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { promisify } from 'node:util';
import { Lane } from '../../../src/sys/lane.ts';
import { poolMade, widenPool } from '../../../src/sys/thread-pool.ts';

const turn = promisify(setImmediate);

test('no more run at once than may, the others follow in order, and a failure gives its place on', async () => {
  const lane = new Lane(() => 2);
  const ends: ((failed?: Error) => void)[] = [];
  const begun: number[] = [];
  const jobs = [0, 1, 2, 3].map((at) =>
    lane.run(() => {
      begun.push(at);
      return new Promise<void>((resolve, reject) => {
        ends[at] = (failed) => (failed === undefined ? resolve() : reject(failed));
      });
    }),
  );
  await turn();
  assert.deepEqual(begun, [0, 1]);
  ends[1]?.(new Error('the disk is gone'));
  await assert.rejects(jobs[1] ?? Promise.resolve(), /the disk is gone/);
  await turn();
  assert.deepEqual(begun, [0, 1, 2]);
  ends[0]?.();
  await jobs[0];
  await turn();
  assert.deepEqual(begun, [0, 1, 2, 3]);
  ends[2]?.();
  ends[3]?.();
  await Promise.all([jobs[2], jobs[3]]);
});

test('the size is told to libuv alone, and one that the administrator set stays', () => {
  const env: NodeJS.ProcessEnv = {};
  widenPool(env);
  assert.deepEqual(env, { UV_THREADPOOL_SIZE: '16' });
  poolMade(env);
  assert.deepEqual(env, {});
  const set = { UV_THREADPOOL_SIZE: '32' };
  widenPool(set);
  poolMade(set);
  assert.deepEqual(set, { UV_THREADPOOL_SIZE: '32' });
});

test('calls that do not come back leave threads for all else, and those behind them wait', async () => {
  const sys = join(import.meta.dirname, '../../../src/sys');
  // A read of an empty pipe waits in the kernel as one of a dead disk does.
  const program = `
    import { writeSync } from 'node:fs';
    import { stat } from 'node:fs/promises';
    import { pipe } from '${sys}/descriptor.ts';
    import { checkInBackground, native } from '${sys}/libc.ts';
    import { poolMade, widenPool } from '${sys}/thread-pool.ts';
    widenPool();
    await stat('/');
    poolMade();
    const { read, write } = pipe();
    const call = native('long read(int fd, void *buffer, size_t length)');
    let back = 0;
    const hung = Array.from({ length: 40 }, () =>
      checkInBackground('read', call, [read, Buffer.alloc(1), 1]).then(() => back++));
    await Promise.all(Array.from({ length: 40 }, () => stat('/')));
    console.log('served', back, process.env.UV_THREADPOOL_SIZE);
    writeSync(write, Buffer.alloc(40));
    await Promise.all(hung);
    console.log('back', back);
  `;
  const run = promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], {
    timeout: 20_000,
  });
  assert.equal((await run).stdout, 'served 0 undefined\nback 40\n');
});
