import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { exec } from '../../../../src/sys/command.ts';
import type { SnapshotStore } from '../../../../snapshotter/store.ts';
import { state } from '../../../unit/snapshotter/methods.ts';
import type { Doomed } from '../../support/dying-snapshotter.ts';
import { BASE, steps, type Step } from '../../support/snapshotter-steps.ts';
import { slowness } from '../../support/slowness.ts';
import { realPool, skip, type RealPool } from './real-pool.ts';

const program = join(import.meta.dirname, '../../support/dying-snapshotter.ts');
const OTHER = 'another';

/** What a client sees of this id, and what there is of it, whatever its name. */
function outcome(store: SnapshotStore, id: string): string {
  const told = [...store.list([])].map(({ name, kind, parent, labels }) => ({ name, kind, parent, labels }));
  const nodes = store
    .datasets()
    .map(({ state, snapshot }) => ({ state, name: snapshot?.name, owner: snapshot?.owner }));
  const sorted = (all: readonly unknown[]): string[] => all.map((each) => JSON.stringify(each)).sort();
  const own = [...sorted(told), '|', ...sorted(nodes)].filter((text) => text === '|' || text.includes(id));
  return own.join('\n').replaceAll(id, 'ID');
}

suite('a snapshotter that is killed at a command of ZFS', { skip }, () => {
  let pool: RealPool;
  let serial = 0;
  before(async () => {
    pool = await realPool();
    const store = await pool.open();
    await store.prepare({ name: 'default/1/extract-base', kind: 'active', parent: '', labels: {} });
    await store.commit({ name: BASE, key: 'default/1/extract-base', labels: {}, parent: '' });
    await store.sweep();
  });
  after(() => pool.close());

  /** @returns whether it was killed */
  const kill = async (doomed: Omit<Doomed, 'root' | 'mounts' | 'owner'>): Promise<boolean> => {
    const all: Doomed = { ...doomed, root: pool.root, mounts: `${pool.folder}/mnt`, owner: 'test' };
    const result = await exec(process.execPath, [program, JSON.stringify(all)], {
      timeoutMs: 60_000 * slowness,
    });
    if (result.signal !== 'SIGKILL') assert.equal(result.exitCode, 0, result.stderr);
    return result.signal === 'SIGKILL';
  };

  for (const [step, { before: prepare }] of Object.entries(steps) as [Step, (typeof steps)[Step]][]) {
    test(`in ${step}: what was so before is so, or what it was to do, and nothing is left half made`, async () => {
      const seen: { told: string; found: string; from: string }[] = [];
      for (let nth = 0, alive = false; !alive; nth++) {
        for (const when of ['before', 'after'] as const) {
          if (alive) break;
          const id = `${step}-${serial++}`;
          const store = await pool.open(step === 'adopt' ? { owner: OTHER } : {});
          if (step === 'adopt')
            await store.prepare({ name: `default/3/${id}`, kind: 'active', parent: '', labels: {} });
          else await prepare(store, id);
          const from = outcome(await pool.open(), id);
          alive = !(await kill({ step, id, nth, when }));
          const again = await pool.open();
          seen.push({
            told: alive ? 'alive' : `killed ${when} command ${nth}`,
            found: outcome(again, id),
            from,
          });
          // What it was in the middle of can be asked for again.
          if (step === 'adopt') await steps.adopt.run(again, id);
          assert.deepEqual((await again.sweep()).failed, []);
          if (step === 'adopt' || step === 'cleanup')
            seen.push({ told: 'again', found: outcome(again, id), from: '' });
          assert.deepEqual(state(await pool.open()), state(again), `${id}: index and pool differ`);
          for (const { name } of [...again.list([])]) if (name.includes(id)) await again.remove(name);
          await again.sweep();
        }
      }
      const done = seen.findLast(({ told }) => told === 'alive')?.found ?? '';
      for (const { told, found, from } of seen) {
        // Of what collects garbage and what adopts, any part may be done; the rest is done by the next.
        if (told.startsWith('killed') && (step === 'adopt' || step === 'cleanup')) continue;
        assert.ok(found === done || found === from, `${told}:\n${found}\nneither\n${from}\nnor\n${done}`);
      }
      assert.ok(
        seen.some(({ told, found }) => told.startsWith('killed before') && found !== done),
        'it was killed before it was done',
      );
    });
  }
});
