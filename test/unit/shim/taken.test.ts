import assert from 'node:assert/strict';
import { test } from 'node:test';
import { untilTaken } from '../../../shim/stdio/taken.ts';

/** Counts looks at output that waits until one of them. */
function waiting(until: number) {
  const way = { looks: 0, pending: () => (way.looks++ < until ? 1 : 0) };
  return way;
}

test('what waits for a client that reads nothing is waited for a moment', async () => {
  const way = waiting(Infinity);
  await untilTaken([way], () => false);
  assert.equal(way.looks, 101);
});

test('a client that may not have had a processor is waited for longer, but not for ever', async () => {
  const late = waiting(300);
  await untilTaken([late], () => true);
  assert.equal(late.looks, 301);
  const never = waiting(Infinity);
  await untilTaken([never], () => true);
  assert.equal(never.looks, 501);
});
