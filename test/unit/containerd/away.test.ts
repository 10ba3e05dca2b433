import assert from 'node:assert/strict';
import { test } from 'node:test';
import { untilBack } from '../../../src/containerd/away.ts';
import { NotFound, Unavailable } from '../../../src/errors.ts';

test('what containerd is needed for is tried until it is back', async () => {
  let tries = 0;
  await untilBack(
    10_000,
    1,
  )(async () => {
    if (++tries < 4) throw new Unavailable('containerd does not answer');
  });
  assert.equal(tries, 4);
});

test('but not for ever, and another failure is one at once', async () => {
  const soon = untilBack(20, 1);
  const away = (): Promise<void> => Promise.reject(new Unavailable('away'));
  await assert.rejects(soon(away), Unavailable);
  let tries = 0;
  await assert.rejects(
    soon(() => {
      tries++;
      return away();
    }),
    Unavailable,
  );
  assert.equal(tries, 1, 'the patience is shared');
  await assert.rejects(
    untilBack(10_000, 1)(() => Promise.reject(new NotFound('gone'))),
    NotFound,
  );
});
