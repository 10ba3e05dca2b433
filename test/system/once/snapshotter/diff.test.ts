import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { compareTrees } from '../../../../snapshotter/diff/compare.ts';
import { DiffThreads } from '../../../../snapshotter/diff/threads.ts';
import type { Trees } from '../../../../snapshotter/diff/trees.ts';
import type { SnapshotStore } from '../../../../snapshotter/store.ts';
import { Code, codeOf, messageOf } from '../../../../src/errors.ts';
import { silent } from '../../../../src/log.ts';
import type { TarEntry } from '../../../../src/tar/entry.ts';
import { encodeEntry, END_OF_ARCHIVE } from '../../../../src/tar/writer.ts';
import { describeTree } from '../../support/tree.ts';
import { Dice, mutate } from '../../support/mutate.ts';
import { realPool, skip, type RealPool } from './real-pool.ts';

const latin1 = (path: string): string => Buffer.from(path).toString('latin1');

/** One change a line, without what may differ between two ways to find it. */
function changes(trees: Trees, known: Trees['known']): string[] {
  const left = trees.left === undefined ? undefined : latin1(trees.left);
  return [...compareTrees(left, latin1(trees.right), known)].map(({ kind, path }) => `${kind} ${path}`);
}

suite('a diff on a real pool', { skip }, () => {
  let pool: RealPool;
  let store: SnapshotStore;
  const threads = new DiffThreads(silent);
  before(async () => {
    pool = await realPool();
    store = await pool.open();
    await pool.zfs.create(`${pool.root}/reading`, { properties: { canmount: 'off' } });
  });
  after(async () => {
    await threads.close();
    await pool.close();
  });

  const prepare = async (name: string, parent: string, kind: 'active' | 'view' = 'active'): Promise<string> =>
    (await store.prepare({ name, kind, parent, labels: {} }))[0]?.source ?? '';

  const pack = async (trees: Trees): Promise<Buffer> => {
    const pieces: Buffer[] = [];
    await threads.run(
      { kind: 'pack', ...trees, compression: 'none', latest: undefined },
      { output: async (bytes) => void pieces.push(Buffer.from(bytes)) },
    );
    return Buffer.concat(pieces);
  };

  const unpack = async (archive: Buffer, folder: string): Promise<void> => {
    async function* input(): AsyncIterable<Uint8Array> {
      yield archive;
    }
    await threads.run({ kind: 'unpack', folder, sync: false }, { input: input() });
  };

  for (const seed of [1, 2, 3, 4, 5, 6]) {
    test(`finds through ZFS what a walk through both trees finds, and unpacks to the same tree (seed ${seed})`, async () => {
      const dice = new Dice(seed * 7919);
      const name = (of: string): string => `default/${seed}/${of}`;
      const grow = async (key: string, parent: string, steps: number): Promise<string> => {
        const files = await prepare(name(key), parent);
        for (let step = 0; step < steps; step++) mutate(files, dice);
        return files;
      };
      const commit = (key: string, as: string): Promise<void> =>
        store.commit({ name: name(as), key: name(key), labels: {}, parent: '' });
      await grow('extract-base', '', 150);
      await commit('extract-base', 'base');
      await grow('extract-layer', name('base'), 12);
      await commit('extract-layer', 'layer');
      await grow('container', name('layer'), 12);
      await prepare(name('layer-view'), name('layer'), 'view');
      await prepare(name('base-view'), name('base'), 'view');
      for (const [left, right, parent] of [
        ['base-view', 'layer-view', 'base'],
        ['layer-view', 'container', 'layer'],
        ['base-view', 'container', 'base'], // over two clones
      ] as const) {
        await store.comparing({ left: name(left), right: name(right) }, async (trees) => {
          assert.notEqual(trees.known, undefined, 'ZFS knows how one came of the other');
          assert.deepEqual(changes(trees, trees.known), changes(trees, everything), `${left} ${right}`);
          const folder = await prepare(name(`target-${left}-${right}`), name(parent));
          await unpack(await pack(trees), folder);
          assert.deepEqual(
            describeTree(latin1(folder)),
            describeTree(latin1(trees.right)),
            `${left} ${right}`,
          );
        });
      }
    });
  }

  test('is refused by name where zfs-fuse cannot keep an owner or a time, and taken by the module', async () => {
    const entry: TarEntry = {
      ...{
        name: 'd/far',
        type: 'file',
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 0,
        linkname: '',
        major: 0,
        minor: 0,
      },
      mtime: { seconds: 1_700_000_000, nanos: 0 },
      xattrs: new Map(),
    };
    const year2100 = Date.UTC(2100, 0) / 1000;
    for (const [key, of, said] of [
      ['uid', { uid: 4_294_967_294 }, /entry d\/far belongs to user 4294967294, .*owners below 2147483648/],
      ['gid', { gid: 2_147_483_648 }, /entry d\/far belongs to group 2147483648, .*owners below 2147483648/],
      ['time', { mtime: { seconds: year2100, nanos: 0 } }, /was changed at 2100-01-01T.*times until 2038/],
      ['last', { uid: 2_147_483_647, mtime: { seconds: 2 ** 31 - 1, nanos: 0 } }, undefined],
    ] as const) {
      const folder = await prepare(`default/7/${key}`, '');
      const made = unpack(Buffer.concat([encodeEntry({ ...entry, ...of }), END_OF_ARCHIVE]), folder);
      if (said === undefined || pool.zfs.kind === 'openzfs') await made;
      else
        await assert.rejects(made, (error) => {
          assert.match(messageOf(error), said);
          return codeOf(error) === Code.FailedPrecondition;
        });
      await store.remove(`default/7/${key}`);
    }
  });

  test('of a file that is written meanwhile has it as it was at one instant', async () => {
    const base = await prepare('default/20/base', '');
    writeFileSync(`${base}/f`, 'old');
    await store.commit({ name: 'base-20', key: 'default/20/base', labels: {}, parent: '' });
    const files = await prepare('default/20/web', 'base-20');
    await prepare('default/20/view', 'base-20', 'view');
    writeFileSync(`${files}/f`, 'new');
    await store.comparing({ left: 'default/20/view', right: 'default/20/web' }, async (trees) => {
      writeFileSync(`${files}/f`, 'newer');
      writeFileSync(`${files}/g`, 'g');
      assert.deepEqual(changes(trees, trees.known), ['modify /f']);
      assert.match((await pack(trees)).toString('latin1'), /\0new\0/);
    });
  });

  test('leaves nothing behind, and what a crash left is swept at the next start', async () => {
    const files = await prepare('default/30/web', '');
    mkdirSync(`${files}/d`);
    const all = async (): Promise<string[]> =>
      (await pool.zfs.list({ root: pool.root, types: ['filesystem', 'snapshot'], properties: [] })).map(
        ({ name }) => name,
      );
    const before = await all();
    await store.comparing({ left: undefined, right: 'default/30/web' }, async (trees) => {
      assert.deepEqual(changes(trees, trees.known), ['add /d']);
    });
    assert.deepEqual(await all(), before);
    const dataset = store.findContainer('default', 'web')?.dataset ?? '';
    await pool.zfs.snapshot([`${dataset}@stasis-diff-00000000-0000-0000-0000-000000000000`]);
    await pool.open();
    assert.deepEqual(await all(), before);
  });
});

/** Says that anything may have changed, so that each pair of files is looked at. */
const all = { has: () => true } as unknown as ReadonlySet<number>;
const everything = {
  objects: all,
  contents: all,
  plain: new Set<number>(),
  anyAttributes: true,
};
