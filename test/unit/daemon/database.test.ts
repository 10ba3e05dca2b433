import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Database } from '../../../src/daemon/database.ts';
import { Code, codeOf, Unavailable } from '../../../src/errors.ts';
import { silent } from '../../../src/log.ts';
import type { SnapshotStore } from '../../../snapshotter/store.ts';
import { harness, OWNER, type Harness } from '../snapshotter/harness.ts';

type Asked = ConstructorParameters<typeof Database>[0];

const WEB = 'default/3/web';
/** In the harness's time. */
const YOUNG = 1_700_000_050;
const OLD = 1_600_000_000;

/** A containerd that knows these snapshots, and counts how often it is asked. */
class FakeContainerd {
  known: string[] = [];
  asked = 0;
  answers = true;

  readonly api = {
    namespaces: async () => {
      this.asked++;
      if (!this.answers) throw new Unavailable('containerd does not answer');
      return ['default'];
    },
    namespace: () => ({
      snapshots: {
        // It asks for each, and leaves out what does not exist.
        list: async function* (this: void) {
          const info = [];
          for (const name of known()) {
            if (has(name)) info.push({ name });
          }
          yield { info };
        },
      },
    }),
    plugins: async () => [{ exports: { root: '/var/lib/containerd/io.containerd.content.v1.content' } }],
  } as unknown as Asked;

  constructor() {
    known = () => this.known;
  }
}
let known: () => string[] = () => [];
let has: (name: string) => boolean = () => true;

const names = (store: SnapshotStore): string[] => [...store.list([])].map(({ name }) => name);

async function withWeb(t: TestContext): Promise<Harness> {
  const h = await harness(t, { trashGrace: 0 });
  await h.store.prepare({ name: WEB, kind: 'active', parent: '', labels: {} });
  h.clock.seconds += 100;
  return h;
}

test('the snapshots of a database that was lost are not listed, survive restarts, and are back with it', async (t) => {
  const h = await withWeb(t);
  const containerd = new FakeContainerd();
  const paths: string[] = [];
  const database = new Database(containerd.api, h.store, silent, async (path) => {
    paths.push(path);
    return YOUNG;
  });
  await Promise.all([database.look(OWNER), database.look(OWNER)]);
  assert.equal(containerd.asked, 1, 'once for each process');
  assert.deepEqual(paths, ['/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db']);
  await h.store.prepare({ name: 'default/1/new', kind: 'active', parent: '', labels: {} });
  for (const store of [h.store, await h.restart()]) {
    assert.deepEqual(names(store), ['default/1/new']);
    assert.equal(store.strangers.foreign().length, 1);
    await store.sweep();
  }
  const store = await h.restart();
  await store.remove('default/1/new');
  containerd.known = [WEB];
  const back = new Database(containerd.api, store, silent, async () => OLD);
  has = (name) => {
    if (store.lookup(name) === undefined) back.asked(OWNER, name);
    return store.lookup(name) !== undefined;
  };
  t.after(() => {
    has = () => true;
  });
  await back.look(OWNER);
  assert.deepEqual(names(store), [WEB]);
  assert.deepEqual(names(await h.restart()), [WEB]);
});

test('a database that is older than the snapshots, or knows one, or whose age nobody knows, is the one that they are of', async (t) => {
  const h = await withWeb(t);
  const containerd = new FakeContainerd();
  for (const born of [OLD, undefined])
    await new Database(containerd.api, h.store, silent, async () => born).look(OWNER);
  containerd.known = ['web'];
  await new Database(containerd.api, h.store, silent, async () => YOUNG).look(OWNER); // moved to another disk
  assert.deepEqual(names(h.store), [WEB]);
});

test('a containerd that cannot be asked is asked again, and a new process of it too', async (t) => {
  const h = await withWeb(t);
  const containerd = new FakeContainerd();
  const database = new Database(containerd.api, h.store, silent, async () => OLD);
  containerd.answers = false;
  await assert.rejects(database.look(OWNER), (error) => codeOf(error) === Code.Unavailable);
  containerd.answers = true;
  await database.look(OWNER);
  await database.look(OWNER);
  assert.equal(containerd.asked, 2);
  database.forget();
  await database.look(OWNER);
  assert.equal(containerd.asked, 3);
});

test('a name that is in use again keeps its new snapshot when the lost database is back', async (t) => {
  const h = await withWeb(t);
  const containerd = new FakeContainerd();
  await new Database(containerd.api, h.store, silent, async () => YOUNG).look(OWNER);
  await h.store.prepare({ name: WEB, kind: 'active', parent: '', labels: { new: 'yes' } });
  containerd.known = ['web'];
  await new Database(containerd.api, h.store, silent, async () => YOUNG).look(OWNER);
  assert.deepEqual(h.store.stat(WEB).labels, { new: 'yes' });
  await h.store.sweep();
  assert.equal(h.store.strangers.foreign().length, 1);
});

test('the new database is no proof of the former one, though it knows snapshots of its own', async (t) => {
  const h = await withWeb(t);
  const containerd = new FakeContainerd();
  const look = (): Promise<void> =>
    new Database(containerd.api, h.store, silent, async () => YOUNG).look(OWNER);
  await look();
  await h.store.prepare({ name: 'default/1/new', kind: 'active', parent: '', labels: {} });
  containerd.known = ['new'];
  await look(); // containerd, or stasisd, was started again
  assert.deepEqual(names(h.store), ['default/1/new']);
  assert.deepEqual(h.store.strangers.lostNames(OWNER), new Set([WEB]));
});

for (const told of ['the age of its file', 'a snapshot that it has a record of']) {
  test(`the former database is told by ${told}, whatever the new one has made, which is kept`, async (t) => {
    const h = await withWeb(t);
    await h.store.prepare({ name: 'default/2/job', kind: 'active', parent: '', labels: {} });
    h.clock.seconds += 100;
    const containerd = new FakeContainerd();
    const born = YOUNG + 100;
    await new Database(containerd.api, h.store, silent, async () => born).look(OWNER);
    const made = { kind: 'active', parent: '', labels: { new: 'yes' } } as const;
    for (const name of [WEB, 'default/4/late']) await h.store.prepare({ ...made, name });
    const interim = h.store.stat(WEB).dataset;
    const age = told.startsWith('the age') ? OLD : born + 500;
    const former = new Database(containerd.api, h.store, silent, async () => age);
    containerd.known = ['web', 'job'];
    has = (key) => {
      const name = key === 'web' ? WEB : 'default/2/job';
      if (age !== OLD && h.store.lookup(name) === undefined) former.asked(OWNER, name);
      return h.store.lookup(name) !== undefined;
    };
    t.after(() => {
      has = () => true;
    });
    await former.look(OWNER);
    for (const store of [h.store, await h.restart()]) {
      assert.deepEqual(names(store).sort(), ['default/2/job', WEB]);
      assert.deepEqual(store.stat(WEB).labels, {}, 'the former one');
      await store.sweep();
      assert.equal(store.nodeOf(interim)?.state, 'adopted');
      assert.ok(h.zfs.datasets.has(interim));
      assert.deepEqual(store.strangers.foreign(), []);
    }
  });
}

test('what was lost can be adopted, and dropped', async (t) => {
  const h = await withWeb(t);
  await new Database(new FakeContainerd().api, h.store, silent, async () => YOUNG).look(OWNER);
  const [node] = h.store.strangers.foreign();
  const { adopted } = await h.store.strangers.adopt([], { dryRun: false });
  assert.deepEqual(adopted, [node]);
  const store = await h.restart();
  assert.deepEqual([names(store), store.strangers.foreign()], [[], []]);
  await store.strangers.drop([node?.dataset ?? ''], { dryRun: false, checkpointsOf: () => [] });
  assert.ok(!h.zfs.datasets.has(node?.dataset ?? ''));
});
