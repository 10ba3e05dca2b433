import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { KeyedMutex } from '../../../src/checkpoint/locks.ts';

suite('KeyedMutex', () => {
  test('holders of one key run one after another, in the order in which they asked', async () => {
    const mutex = new KeyedMutex();
    const log: string[] = [];
    const hold = (name: string): Promise<void> =>
      mutex.run('k', async () => {
        log.push(`${name} in`);
        await turn();
        log.push(`${name} out`);
      });
    await Promise.all([hold('a'), hold('b'), hold('c')]);
    assert.deepEqual(log, ['a in', 'a out', 'b in', 'b out', 'c in', 'c out']);
  });

  test('two holders that need the same two keys in other orders do not wait for each other for ever', async () => {
    const mutex = new KeyedMutex();
    const work = async (): Promise<number> => {
      await turn();
      return 1;
    };
    const all = await Promise.all([
      mutex.run(['a', 'b'], work),
      mutex.run(['b', 'a'], work),
      mutex.run(['a', 'a'], work),
    ]);
    assert.deepEqual(all, [1, 1, 1]);
  });

  test('who gives up while waiting is out at once, and those behind still wait for those before', async () => {
    const mutex = new KeyedMutex();
    const log: string[] = [];
    const { promise: end, resolve } = Promise.withResolvers<void>();
    const first = mutex.run('k', () => end.then(() => void log.push('first out')));
    const controller = new AbortController();
    const second = mutex.run('k', async () => void log.push('second in'), controller.signal);
    const third = mutex.run('k', async () => void log.push('third in'), controller.signal);
    const fourth = mutex.run('k', async () => void log.push('fourth in'));
    controller.abort(new Error('enough'));
    await assert.rejects(second, /enough/);
    await assert.rejects(third, /enough/);
    await turn();
    assert.equal(log.length, 0);
    resolve();
    await Promise.all([first, fourth]);
    assert.deepEqual(log, ['first out', 'fourth in']);
    await assert.rejects(
      mutex.run('k', async () => void log.push('never'), controller.signal),
      /enough/,
    );
    assert.equal(await mutex.run('k', async () => 3), 3);
  });

  test('a holder that throws lets the next one in', async () => {
    const mutex = new KeyedMutex();
    await assert.rejects(
      mutex.run('k', () => Promise.reject(new Error('no'))),
      /no/,
    );
    assert.equal(await mutex.run('k', async () => 2), 2);
  });
});
