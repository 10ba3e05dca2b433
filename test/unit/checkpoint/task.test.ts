import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { endTask, removeTask } from '../../../src/checkpoint/task.ts';
import { Code, NotFound, StasisError, Unavailable } from '../../../src/errors.ts';

/** A containerd of one task. */
const host = (tasks: object): Parameters<typeof endTask>[0] =>
  ({ containerd: { namespace: () => ({ tasks }) } }) as never;

test('a task that its client deletes while it is killed has ended', async () => {
  const gone = (): Promise<never> => Promise.reject(new NotFound('task web not found'));
  const kill = (): Promise<void> => sleep(20);
  await endTask(host({ wait: gone, kill, resume: gone }), 'default', 'web');
});

test('one that cannot be killed is not waited for, whatever becomes of the wait', async () => {
  const away = (): Promise<never> => Promise.reject(new Unavailable('away'));
  const ended = endTask(host({ wait: away, kill: async () => sleep(5).then(away) }), 'default', 'web');
  await assert.rejects(ended, Unavailable);
});

test('one that another client has just deleted is gone, though containerd has an error for who comes then', async () => {
  const gone = (): Promise<never> => Promise.reject(new NotFound('task web not found'));
  const closed = (): Promise<never> =>
    Promise.reject(new StasisError(Code.Unknown, 'ttrpc: closed: unknown'));
  await removeTask(host({ get: gone, delete: closed }), 'default', 'web');
});
