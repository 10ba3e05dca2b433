import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { QuietTime } from '../../../shim/lifecycle/quiet.ts';

function quietTime(t: TestContext) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let now = 0;
  t.mock.method(performance, 'now', () => now);
  let done = 0;
  const quiet = new QuietTime({ quietMs: 5000, againMs: 60_000, work: () => done++ });
  const pass = (milliseconds: number): number => {
    now += milliseconds;
    t.mock.timers.tick(milliseconds);
    return done;
  };
  return { quiet, pass };
}

test('work waits until nothing happens, and is done once', (t) => {
  const { quiet, pass } = quietTime(t);
  assert.equal(pass(4000), 0);
  quiet.note();
  assert.equal(pass(4000), 0);
  assert.equal(pass(1000), 1);
  assert.equal(pass(600_000), 1);
  quiet.note();
  assert.equal(pass(5000), 2);
});

test('work is not done again too soon, but is when that is over', (t) => {
  const { quiet, pass } = quietTime(t);
  assert.equal(pass(5000), 1);
  for (let at = 0; at < 50_000; at += 10_000) {
    quiet.note();
    assert.equal(pass(10_000), 1);
  }
  assert.equal(pass(9000), 1);
  assert.equal(pass(1000), 2);
  assert.equal(pass(600_000), 2);
});

test('who has stopped does nothing any more', (t) => {
  const { quiet, pass } = quietTime(t);
  quiet.stop();
  quiet.note();
  assert.equal(pass(100_000), 0);
});
