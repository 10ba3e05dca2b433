import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { DeadlineExceeded, Unavailable } from '../../../src/errors.ts';
import { Patience } from '../../../src/zfs/patience.ts';

suite('calls into a file system that may be dead', () => {
  test('an answer and an error in time are passed on', async () => {
    const patience = new Patience(10_000);
    assert.equal(await patience.wait('tank/a', async () => 7), 7);
    await assert.rejects(
      patience.wait('tank/a', async () => {
        throw new Error('no such file');
      }),
      /no such file/,
    );
  });

  test('one without an answer ends at the deadline, and names the dataset', async () => {
    const patience = new Patience(10);
    await assert.rejects(
      patience.wait('tank/a', () => new Promise<void>(() => undefined)),
      (error) => error instanceof DeadlineExceeded && error.message.includes('tank/a'),
    );
  });

  test('while two wait for ever nothing more is asked; once one has ended, it is', async () => {
    const patience = new Patience(10);
    const answers: (() => void)[] = [];
    let asked = 0;
    const stuck = (): Promise<void> =>
      new Promise((resolve) => {
        asked++;
        answers.push(resolve);
      });
    for (let at = 0; at < 2; at++) await assert.rejects(patience.wait('tank/a', stuck), DeadlineExceeded);
    await assert.rejects(patience.wait('tank/b', stuck), Unavailable);
    assert.equal(asked, 2);
    answers[0]?.();
    await new Promise(setImmediate);
    assert.equal(await patience.wait('tank/b', async () => 'answered'), 'answered');
  });
});
