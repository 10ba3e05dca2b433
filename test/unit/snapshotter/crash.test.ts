import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { ZfsKind } from '../../../src/zfs/zfs.ts';
import { dying, harness, Killed, ROOT, type Harness } from './harness.ts';
import { GONE, LAYER, methods, prepared, REUSED, state, visible, WEB } from './methods.ts';

// The kinds differ in how a container is taken out of use, and in nothing else here.
const differing = new Set(['remove of a container', 'rewind', 'sweep']);
const cases = (['openzfs', 'zfs-fuse'] as const).flatMap((kind) =>
  Object.entries(methods).flatMap(([name, run]) =>
    kind === 'openzfs' || differing.has(name) ? [{ kind, name, run }] : [],
  ),
);
for (const { kind, name, run } of cases) {
  test(`${kind}: killed at any step of ${name}, a restart finds all of it or none`, async (t) => {
    const whole = await harness(t, {}, kind);
    const from = await prepared(whole);
    const alive = await whole.restart();
    const before = visible(alive);
    await run(alive, from);
    const after = visible(alive);
    const middle = new Set([before, after]);
    if (name === 'prepare of a layer that was removed') {
      // Two commands: between them it is a Prepare whose answer was lost, which containerd's collector takes back.
      const between = JSON.parse(before) as unknown[];
      middle.add(JSON.stringify([...between, [REUSED, 'active', LAYER, GONE, 1]].sort()));
    }
    assert.deepEqual(state(await whole.restart()), state(alive), 'index and pool agree without a crash');

    for (let nth = 0; ; nth++) {
      let died = false;
      for (const when of ['before', 'after'] as const) {
        const h = await harness(t, {}, kind);
        const dataset = await prepared(h);
        const doomed = await h.restart({ zfs: dying(h.zfs, nth + (await loadCommands(h)), when) });
        await run(doomed, dataset).catch((error: unknown) => {
          assert.ok(error instanceof Killed, String(error));
          died = true;
        });
        const store = await h.restart();
        if (name === 'rewind, undone' || name === 'remove after a rewind')
          middle.add(await rewoundOnly(t, kind));
        assert.ok(
          middle.has(visible(store)),
          `killed ${when} command ${nth}: neither the old nor the new state`,
        );
        await store.sweep();
        assert.deepEqual(
          state(await h.restart()),
          state(store),
          `killed ${when} command ${nth}: index and pool differ`,
        );
        assert.ok(h.zfs.datasets.has(`${dataset}@one`), 'a checkpoint is never lost');
      }
      if (!died) break;
    }
  });
}

for (const kind of ['openzfs', 'zfs-fuse'] as const) {
  test(`${kind}: killed at any step of the first start, the next one makes what is missing`, async (t) => {
    for (let nth = 0; ; nth++) {
      let died = false;
      for (const when of ['before', 'after'] as const) {
        const h = await harness(t, {}, kind);
        await h.zfs.destroy(ROOT, { recursive: true });
        await h.restart({ zfs: dying(h.zfs, nth, when) }).catch((error: unknown) => {
          assert.ok(error instanceof Killed, String(error));
          died = true;
        });
        const store = await h.restart();
        await prepared(h);
        assert.deepEqual(visible(await h.restart()), visible(h.store));
        assert.deepEqual((await store.sweep()).failed, []);
        const below = ['containers', 'layers', 'trash'].map((name) => `${ROOT}/${name}`);
        for (const folder of [ROOT, ...below]) assert.ok(h.zfs.datasets.has(folder), folder);
      }
      if (!died) break;
      assert.ok(nth < 20, 'it ends');
    }
  });

  test(`${kind}: killed at any step of a start that clears what a crash left, the next one does the rest`, async (t) => {
    const passing = `stasis-diff-${'0'.repeat(8)}-0000-0000-0000-${'0'.repeat(12)}`;
    for (let nth = 0; ; nth++) {
      let died = false;
      for (const when of ['before', 'after'] as const) {
        const h = await harness(t, {}, kind);
        const dataset = await prepared(h);
        await h.zfs.snapshot([`${dataset}@${passing}`]);
        const before = visible(await h.restart({ owner: 'another' })) + visible(await h.restart());
        await h.zfs.snapshot([`${dataset}@${passing}`]).catch(() => undefined); // the restart swept it
        await h.restart({ zfs: dying(h.zfs, nth, when) }).catch((error: unknown) => {
          assert.ok(error instanceof Killed, String(error));
          died = true;
        });
        const store = await h.restart();
        assert.equal(visible(await h.restart({ owner: 'another' })) + visible(store), before);
        assert.ok(!h.zfs.datasets.has(`${dataset}@${passing}`));
        assert.ok(h.zfs.datasets.has(`${dataset}@one`), 'a checkpoint is never lost');
        assert.deepEqual(state(await h.restart()), state(store));
      }
      if (!died) break;
      assert.ok(nth < 20, 'it ends');
    }
  });
}

/** Loading a store that exists runs this many commands: the listing, and another for long label sets. */
async function loadCommands(h: Harness): Promise<number> {
  h.commands();
  await h.restart();
  return h.commands().length;
}

async function rewoundOnly(t: TestContext, kind: ZfsKind): Promise<string> {
  const h = await harness(t, {}, kind);
  const dataset = await prepared(h);
  await h.store.rewind(WEB, `${dataset}@one`);
  return visible(h.store);
}
