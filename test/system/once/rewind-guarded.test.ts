// A restore in place while the worker of a guarded shim is killed: what ran goes on with its memory, or what was restored runs.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pidOf, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { guarded, killWorker, withShims } from '../support/guard.ts';
import { dumpBegun } from '../support/staging.ts';
import { attempt, stasis } from '../support/stack.ts';
import { shimPid } from '../shim/shims.ts';

/** How far the writer goes on before each restore. */
const AHEAD = 30;
/** Milliseconds from the beginning of the dump of what runs to a worker's end, and from that to the next one's. */
const KILLS: readonly (readonly [first: number, second?: number])[] = [
  [0],
  [15],
  [40],
  [0, 100],
  [15, 150],
  [15, 180],
  [15, 210],
  [40, 200],
];

suite('workers that are killed in a restore in place lose no memory', () => {
  const web = uniqueName('guarded');
  let at = 0;
  after(() => removeAll(web)); // before the shim is to end
  withShims(guarded);
  before(async () => {
    await startWriter(web);
    at = await progress(web, 1);
    await stasis('checkpoint', web, '--name', 'c', '--require-memory');
  });

  for (const [first, second] of KILLS) {
    const when = second === undefined ? `${first} ms` : `${first} and ${second} ms`;
    test(`after ${when}`, async () => {
      const ahead = await progress(web, AHEAD);
      const guard = await shimPid(web);
      const former = await pidOf(web);
      const begun = dumpBegun();
      const restoring = attempt('stasis', ['restore', web, '--snapshot', 'c', '--require-memory']);
      await begun;
      await sleep(first);
      await killWorker(guard);
      if (second !== undefined) {
        await sleep(second);
        await killWorker(guard);
      }
      const { exitCode, stderr } = await restoring;
      const now = await progress(web, 2);
      assert.doesNotMatch(stderr, /cannot be kept|anew/);
      if (exitCode === 0) {
        assert.ok(now > at, `it began anew: ${now}, and the checkpoint is of ${at}`);
        assert.notEqual(await pidOf(web), former);
      } else {
        assert.match(stderr, /is as it was|was cut off/);
        assert.ok(now >= ahead, `${now} of ${ahead}: ${stderr}`);
      }
    });
  }
});
