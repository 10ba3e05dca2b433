import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { test } from 'node:test';
import { Code, codeOf, messageOf } from '../../../src/errors.ts';
import type { Zfs } from '../../../src/zfs/zfs.ts';
import type { SnapshotStore } from '../../../snapshotter/store.ts';
import { harness, OWNER } from './harness.ts';

/** A small deterministic generator, so that a failure can be run again. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state % below;
  };
}

const CALLERS = 64;
const CALLS = 12;
const KEYS = 10;
const FOREIGN = 5;

for (const seed of [1, 2, 3]) {
  test(`64 callers on overlapping keys never break a rule of the service (seed ${seed})`, async (t) => {
    const h = await harness(t, { trashGrace: 0 });
    const pick = random(seed);
    // What another containerd left, to be taken over meanwhile.
    const other = await h.restart({ owner: 'another' });
    for (let at = 0; at < FOREIGN; at++)
      await other.prepare({ name: `default/1/foreign-${at}`, kind: 'active', parent: '', labels: {} });
    const store = await h.restart();
    const adopted = new Map<string, number>();
    const name = (): string => `default/${pick(KEYS)}/k${pick(KEYS)}`;
    const allowed = new Set<Code>([
      Code.NotFound,
      Code.AlreadyExists,
      Code.FailedPrecondition,
      Code.InvalidArgument,
      Code.Unimplemented, // ZFS in memory compares no snapshots
    ]);
    /** How often each name was made and taken away, by the answers OK alone. */
    const made = new Map<string, number>();
    const count = (key: string, by: number): void => void made.set(key, (made.get(key) ?? 0) + by);
    const call = async (): Promise<void> => {
      const [key, other] = [name(), name()];
      switch (pick(14)) {
        case 0:
        case 1:
          await store.prepare({ name: key, kind: 'active', parent: pick(2) === 0 ? '' : other, labels: {} });
          return count(key, 1);
        case 2:
          await store.prepare({ name: key, kind: 'view', parent: other, labels: {} });
          return count(key, 1);
        case 3:
          await store.commit({ name: other, key, labels: {}, parent: '' });
          count(key, -1);
          return count(other, 1);
        case 4:
          await store.remove(key);
          return count(key, -1);
        case 5:
          await store.update({ name: key, labels: { at: String(pick(1000)) }, paths: ['labels.at'] });
          return;
        case 6:
          await checkpoint(store, h.zfs, key, String(serial++));
          return;
        case 7: {
          const id = checkpoints[pick(Math.max(1, checkpoints.length))]?.id ?? 'none';
          const labels = { 'containerd.io/snapshot/stasis.checkpoint': id };
          await store.prepare({ name: key, kind: 'active', parent: '', labels });
          return count(key, 1);
        }
        case 8: {
          const one = checkpoints[pick(Math.max(1, checkpoints.length))];
          if (one === undefined) return;
          const rewound = await store.rewind(one.name, one.snapshot);
          return pick(2) === 0 ? rewound.done() : rewound.undo();
        }
        case 9:
          await store.usage(key);
          return;
        case 10:
          for (const { snapshot } of (await store.strangers.adopt([], { dryRun: pick(4) === 0 })).adopted)
            if (snapshot.owner === OWNER) adopted.set(snapshot.name, (adopted.get(snapshot.name) ?? 0) + 1);
          return;
        case 11: {
          const left = pick(2) === 0 ? undefined : other;
          await store.comparing({ left, right: key }, async (trees) => {
            await readdir(trees.right); // what is compared is there to the end
            await new Promise(setImmediate);
            await readdir(trees.right);
          });
          return;
        }
        case 12:
          for (const { name: child } of store.list(['kind==active'])) store.lookup(child);
          return;
        default:
          await store.mounts(key);
      }
    };
    let serial = 0;
    const checkpoints: { id: string; name: string; snapshot: string }[] = [];
    /** What the engine does: the disk half, under the container's lock. */
    const checkpoint = (store: SnapshotStore, zfs: Zfs, name: string, at: string): Promise<void> =>
      store.withName(name, async () => {
        const { dataset, kind } = store.stat(name);
        if (kind !== 'active') return;
        const id = `id-${at}`;
        await zfs.snapshot([`${dataset}@c${at}`], { properties: { 'stasis:checkpoint': id } });
        store.noteCheckpoint(dataset, `c${at}`, id);
        checkpoints.push({ id, name, snapshot: `${dataset}@c${at}` });
      });
    await Promise.all(
      Array.from({ length: CALLERS }, async () => {
        for (let at = 0; at < CALLS; at++) {
          if (pick(20) === 0) await store.sweep();
          await call().catch((error: unknown) => assert.ok(allowed.has(codeOf(error)), messageOf(error)));
        }
      }),
    );
    for (const [key, times] of made) {
      assert.ok(
        times === 0 || times === 1,
        `${key} was answered OK ${times} times more than it was taken away`,
      );
      assert.equal(store.lookup(key) !== undefined, times === 1, key);
    }
    for (const { name: child, parent } of store.list([])) {
      if (parent !== '')
        assert.equal(store.lookup(parent)?.kind, 'committed', `the parent of ${child} is gone`);
    }
    assert.deepEqual([...adopted.values()], Array(FOREIGN).fill(1), 'each was taken over once');
    const left = [...h.zfs.datasets.keys()].filter((dataset) => /\/reading\/|@stasis-diff-/.test(dataset));
    assert.deepEqual(left, [], 'diffs leave nothing');
    const again = await h.restart();
    assert.deepEqual([...again.list([])].sort(byName), [...store.list([])].sort(byName));
    await again.sweep();
    assert.deepEqual((await h.restart()).datasets().length, again.datasets().length);
  });
}

function byName(a: { name: string }, b: { name: string }): number {
  return a.name < b.name ? -1 : 1;
}
