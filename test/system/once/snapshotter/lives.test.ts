import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { rounds } from '../../support/slowness.ts';
import { realPool, skip, type RealPool } from './real-pool.ts';

/** Container lives; a thousand take some minutes: STASIS_TEST_LIVES=1000. */
const LIVES = Number(process.env['STASIS_TEST_LIVES'] ?? rounds(24));
/** Lives between two sweeps. */
const SWEEP_EVERY = 8;
const LAYER = 'default/2/layer';
const CHECKPOINT = 'containerd.io/snapshot/stasis.checkpoint';

suite('after many container lives', { skip }, () => {
  let pool: RealPool;
  before(async () => {
    pool = await realPool();
  });
  after(() => pool.close());

  const datasets = async (): Promise<string[]> =>
    (await pool.zfs.list({ root: pool.root, types: ['filesystem', 'snapshot'], properties: [] }))
      .map(({ name }) => name)
      .sort();

  test('there are as many datasets as before, whether a life had a checkpoint, a clone, a rewind or none', async () => {
    const store = await pool.open();
    await store.prepare({ name: 'default/1/extract-1', kind: 'active', parent: '', labels: {} });
    await store.commit({ name: LAYER, key: 'default/1/extract-1', labels: {}, parent: '' });
    await store.prepare({ name: 'default/3/first', kind: 'active', parent: LAYER, labels: {} });
    await store.remove('default/3/first');
    await store.sweep();
    const start = await datasets();
    for (let life = 0; life < LIVES; life++) {
      const name = `default/${10 + life}/job`;
      const [id, copy] = [`id-${life}`, `default/${10 + life}/copy`];
      await store.prepare({ name, kind: 'active', parent: LAYER, labels: {} });
      const dataset = store.findContainer('default', 'job')?.dataset ?? '';
      if (life % 4 > 0) {
        await pool.zfs.snapshot([`${dataset}@one`], { properties: { 'stasis:checkpoint': id } });
        store.noteCheckpoint(dataset, 'one', id);
      }
      if (life % 4 === 2)
        await store.prepare({ name: copy, kind: 'active', parent: LAYER, labels: { [CHECKPOINT]: id } });
      if (life % 4 === 3) await (await store.rewind(name, `${dataset}@one`)).done();
      await store.remove(name);
      if (life % 4 > 0) {
        await pool.zfs.destroyIdempotent(`${dataset}@one`, { defer: true });
        await store.forgetCheckpoint(dataset, 'one');
      }
      if (life % 4 === 2) await store.remove(copy);
      if (life % SWEEP_EVERY === SWEEP_EVERY - 1) await store.sweep();
    }
    await store.sweep();
    assert.deepEqual((await store.sweep()).failed, []);
    assert.deepEqual(await datasets(), start);
    assert.equal(store.datasets().length, (await pool.open()).datasets().length);
  });
});
