// What a snapshotter is killed in: each step with what has to be there before it.
import type { SnapshotStore } from '../../../snapshotter/store.ts';

export const BASE = 'default/2/base';

interface Described {
  before(store: SnapshotStore, id: string): Promise<unknown>;
  run(store: SnapshotStore, id: string): Promise<unknown>;
}

/** What the dataset of a container of this id is called, for `adopt`. */
const key = (id: string): string => `default/3/${id}`;
const make = (store: SnapshotStore, name: string, kind: 'active' | 'view' = 'active'): Promise<unknown> =>
  store.prepare({ name, kind, parent: BASE, labels: {} });
const nothing = async (): Promise<void> => undefined;

export const steps = {
  prepare: { before: nothing, run: (store, id) => make(store, key(id)) },
  view: { before: nothing, run: (store, id) => make(store, key(id), 'view') },
  commit: {
    before: (store, id) => make(store, `default/3/extract-${id}`),
    run: (store, id) =>
      store.commit({ name: key(id), key: `default/3/extract-${id}`, labels: { a: 'b' }, parent: '' }),
  },
  update: {
    before: (store, id) => make(store, key(id)),
    run: (store, id) => store.update({ name: key(id), labels: { a: 'b'.repeat(1500) }, paths: undefined }),
  },
  remove: { before: (store, id) => make(store, key(id)), run: (store, id) => store.remove(key(id)) },
  cleanup: {
    before: async (store, id) => {
      for (const name of [key(id), `default/3/extract-${id}`]) {
        await make(store, name);
        await store.remove(name);
      }
    },
    run: (store) => store.sweep(),
  },
  adopt: {
    before: nothing, // the test makes it for another containerd
    run: (store, id) => {
      const found = store.strangers.foreign().filter(({ snapshot }) => snapshot?.name === key(id));
      return store.strangers.adopt(
        found.map(({ dataset }) => dataset),
        { dryRun: false },
      );
    },
  },
} as const satisfies Readonly<Record<string, Described>>;

export type Step = keyof typeof steps;
