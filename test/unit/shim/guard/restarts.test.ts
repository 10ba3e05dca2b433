import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Restarts } from '../../../../shim/guard/restarts.ts';

const why = 'SIGKILL';
const SHORT_MS = 20;
const LONG_MS = 1000;

test('ten short lives in a row are followed at once, so that output that waits for a worker does not wait for a pause too', () => {
  const restarts = new Restarts();
  const pauses = Array.from({ length: 12 }, () => restarts.after({ servedMs: SHORT_MS, why }).pauseMs);
  assert.deepEqual(pauses, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 100]);
});

test('a life that was long enough ends the count of the short ones', () => {
  const restarts = new Restarts();
  for (let n = 0; n < 11; n++) restarts.after({ servedMs: SHORT_MS, why });
  assert.equal(restarts.after({ servedMs: LONG_MS, why }).pauseMs, 0);
  assert.equal(restarts.after({ servedMs: SHORT_MS, why }).pauseMs, 0);
});

test('a start that failed between short lives does not end their count, or a worker that dies of every other thing would turn for ever', () => {
  const restarts = new Restarts();
  for (let n = 0; n < 10; n++) {
    restarts.after({ servedMs: SHORT_MS, why });
    restarts.after({ servedMs: undefined, why });
  }
  assert.equal(restarts.after({ servedMs: SHORT_MS, why }).pauseMs, 100);
});

test('after a second start that failed there is a pause, which grows, and after five requests are refused', () => {
  const restarts = new Restarts();
  const ends = Array.from({ length: 6 }, () => {
    const { pauseMs } = restarts.after({ servedMs: undefined, why });
    return [pauseMs, restarts.refusal === undefined];
  });
  assert.deepEqual(ends, [
    [0, true],
    [100, true],
    [200, true],
    [400, true],
    [5000, false],
    [5000, false],
  ]);
  restarts.after({ servedMs: LONG_MS, why });
  assert.equal(restarts.refusal, undefined);
});

test('the last ten ends are kept, for the program that takes the place of this one too; an older one has kept the last', () => {
  const restarts = new Restarts({ restarts: 1, lastEnd: { why: 'first', at: 1 } });
  assert.deepEqual(restarts.state.ends, [{ why: 'first', at: 1 }]);
  for (let n = 0; n < 9; n++) restarts.after({ servedMs: LONG_MS, why: `end ${n}` });
  const next = new Restarts(restarts.state);
  assert.deepEqual(next.state, restarts.state);
  assert.equal(next.state.ends?.at(0)?.why, 'first');
  next.after({ servedMs: LONG_MS, why: 'last' });
  const { restarts: count, lastEnd, ends = [] } = next.state;
  assert.equal(count, 11);
  assert.deepEqual(
    ends.map((end) => end.why),
    [...Array.from({ length: 9 }, (_, n) => `end ${n}`), 'last'],
  );
  assert.deepEqual(lastEnd, ends.at(-1));
  assert.ok(ends.slice(1).every(({ at }) => Math.abs(at - Date.now()) < 60_000));
});
