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

  test('what could not be undone is told, once, and an undo may be tried several times', async () => {
    let tries = 0;
    const twice = async (undo: () => Promise<void>): Promise<void> => undo().catch(undo);
    const steps = new Steps(silent, twice);
    steps.undo('at last', async () => {
      if (tries++ === 0) throw new Error('not yet');
    });
    steps.undo('never', () => Promise.reject(new Error('cannot')));
    const failures = await steps.rollBack();
    assert.deepEqual(
      failures.map(({ what }) => what),
      ['never'],
    );
    assert.equal(tries, 2);
    assert.deepEqual(await steps.rollBack(), []);
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
