import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Steps } from '../../../src/checkpoint/steps.ts';
import { silent } from '../../../src/log.ts';

suite('Steps', () => {
  test('what was done is undone backwards, and a failing undo does not stop the others', async () => {
    const undone: string[] = [];
    const work = async (): Promise<void> => {
      await using steps = new Steps(silent);
      steps.undo('first', async () => void undone.push('first'));
      steps.undo('second', () => Promise.reject(new Error('cannot')));
      steps.undo('third', async () => void undone.push('third'));
      throw new Error('the work failed');
    };
    await assert.rejects(work(), /the work failed/);
    assert.deepEqual(undone, ['third', 'first']);
  });

  test('what was committed stays', async () => {
    const undone: string[] = [];
    await (async () => {
      await using steps = new Steps(silent);
      steps.undo('first', async () => void undone.push('first'));
      steps.commit();
    })();
    assert.deepEqual(undone, []);
  });
});
