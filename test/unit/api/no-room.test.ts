import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explainNoRoom } from '../../../src/api/no-room.ts';
import { Internal, NotFound, ResourceExhausted, StasisError } from '../../../src/errors.ts';

test('a full pool is told without datasets, also where containerd has lost the code of the error', () => {
  const text =
    "cannot create dataset tank/stasis/containers/default/web: cannot create 'tank/x': out of space";
  // Code 2 is Unknown, and its text gets the code's name.
  for (const error of [new ResourceExhausted(text), new StasisError(2, `${text}: unknown`)]) {
    const told = explainNoRoom(error, 'container web', 'web');
    assert.ok(told instanceof ResourceExhausted);
    assert.equal(told.message, 'the pool or a quota has no room for container web');
    assert.equal(told.reason, 'no-room');
    assert.match(told.remedy ?? '', /stasis df/);
    assert.doesNotMatch(`${told.message} ${String(told.cause)}`, /tank/);
  }
});

test('other errors, and those that say more, stay as they are', () => {
  const others = [
    new NotFound('no container web'),
    new Internal('cannot create x: out of space'),
    new ResourceExhausted('a message is too long'),
    new ResourceExhausted('the root file system cannot be copied: out of space', { reason: 'copy-failed' }),
    'out of space',
    undefined,
  ];
  for (const error of others) assert.equal(explainNoRoom(error, 'container web', 'web'), error);
});
