import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeadlineExceeded, Unavailable } from '../../../src/errors.ts';
import { harness, stalling } from './harness.ts';
import { LAYER, methods, prepared, state, visible } from './methods.ts';

for (const [name, run] of Object.entries(methods)) {
  test(`a pool that gives no answer in any step of ${name}, and is mended, is what the running store says it is`, async (t) => {
    for (let nth = 0; ; nth++) {
      const h = await harness(t, { trashGrace: 0 });
      const dataset = await prepared(h);
      h.commands();
      await h.restart();
      const { zfs, mend } = stalling(h.zfs, nth + h.commands().length);
      const store = await h.restart({ zfs });
      let refused = false;
      await run(store, dataset).catch((error: unknown) => {
        assert.ok(error instanceof DeadlineExceeded, String(error));
        refused = true;
      });
      const reads = visible(store); // still answered, from memory
      assert.ok(reads.length > 0);
      await mend();
      await store.sweep();
      const again = await h.restart();
      assert.equal(visible(store), visible(again), `no answer to command ${nth}: what is listed`);
      assert.deepEqual(state(store), state(again), `no answer to command ${nth}`);
      assert.deepEqual((await again.sweep()).failed, []);
      assert.ok(h.zfs.datasets.has(`${dataset}@one`), 'a checkpoint is never lost');
      if (!refused) break;
    }
  });
}

for (const asked of [DeadlineExceeded, Unavailable]) {
  test(`a new dataset whose files give no answer (${asked.name}) is gone once the pool answers again`, async (t) => {
    const h = await harness(t, { trashGrace: 0 });
    await prepared(h);
    await h.store.sweep();
    const before = visible(h.store);
    const datasets = [...h.zfs.datasets.keys()].sort();
    t.mock.method(h.mounter, 'answer', async (dataset: string) => {
      throw new asked(`the files of dataset ${dataset} do not answer`);
    });
    const made = { name: 'default/9/new', kind: 'active', parent: LAYER, labels: {} } as const;
    await assert.rejects(h.store.prepare(made), asked);
    assert.notDeepEqual(
      [...h.zfs.datasets.keys()].sort(),
      datasets,
      'it was made before its files were asked for',
    );
    t.mock.restoreAll();
    assert.equal(visible(h.store), before);
    await h.store.prepare(made);
    await h.store.remove(made.name);
    assert.deepEqual((await h.store.sweep()).failed, []);
    assert.deepEqual([...h.zfs.datasets.keys()].sort(), datasets);
  });
}
