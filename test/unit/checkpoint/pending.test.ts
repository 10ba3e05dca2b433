import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Pending, type PendingContainer } from '../../../src/checkpoint/pending.ts';

const named = (container: string): PendingContainer => ({
  ...{ namespace: 'default', container, snapshotter: 'stasis', snapshotKey: container },
});
const names = async (pending: Pending): Promise<string[]> =>
  (await pending.left()).map(({ note }) => note.container).sort();

test('what was given up half-way is left, of this process too; not what is under way, nor what is done', async () => {
  const runDir = mkdtempSync(join(tmpdir(), 'stasis-pending-'));
  try {
    const pending = new Pending(runDir);
    {
      using underWay = pending.open(named('under-way'));
      {
        using done = pending.open(named('done'));
        done.done();
        using _givenUp = pending.open(named('given-up'));
        assert.deepEqual(await names(pending), []);
      }
      const [left, ...others] = await pending.left();
      assert.equal(left?.note.container, 'given-up');
      assert.deepEqual(others, []);
      assert.equal(left.still(), true);
      // Another operation takes the name before the sweep gets to it.
      using _again = pending.open(named('given-up'));
      assert.equal(left.still(), false);
      // To a process that comes later all of them are cut off.
      assert.deepEqual(await names(new Pending(runDir)), ['given-up', 'under-way']);
      underWay.done();
    }
    assert.deepEqual(await names(pending), ['given-up']);
    for (const left of await pending.left()) await left.done();
    assert.deepEqual(await names(pending), []);
  } finally {
    rmSync(runDir, { recursive: true });
  }
});
