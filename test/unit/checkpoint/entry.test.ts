import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Catalog } from '../../../src/checkpoint/catalog.ts';
import {
  type CheckpointEntry,
  diskProperties,
  entryFromRows,
  memberProperties,
  memoryProperties,
  newCheckpointId,
  setProperties,
} from '../../../src/checkpoint/entry.ts';
import type { Properties, Row } from '../../../src/zfs/zfs.ts';

const entry: CheckpointEntry = {
  id: 'abc-1',
  namespace: 'default',
  container: 'web',
  name: 'before',
  set: '',
  createdNs: 1_700_000_000_123_456_789n,
  memory: 'image',
  disk: 'snapshot',
  snapshot: 'tank/stasis/containers/default/web@before',
  memorySnapshot: 'tank/stasis/containers/default/web/memory@before',
  memoryBytes: 12345,
  writtenBytes: 4096,
  unchangedSince: { id: 'former', name: 'one' },
  memoryError: '',
  image: 'docker.io/library/busybox:latest',
  runtime: 'io.containerd.stasis.v2',
  timings: { frozenNs: 1, freezeNs: 2, dumpNs: 3, syncNs: 4, snapshotNs: 5, storeNs: 6, totalNs: 7 },
};

function row(
  name: string,
  properties: Properties,
  source: 'local' | 'inherited' | 'received' = 'local',
): Row {
  const own = new Map(Object.entries(properties).map(([key, value]) => [key, { value, source }]));
  return { name, type: 'snapshot', properties: own };
}
const disk = row(entry.snapshot, diskProperties(entry));
const memory = row(entry.memorySnapshot ?? '', memoryProperties(entry));

suite('a checkpoint in the pool', () => {
  test('is read back from its two snapshots as it was written', () => {
    assert.deepEqual(entryFromRows([disk, memory]), { entries: [entry], orphans: [], retired: [] });
    assert.deepEqual(entryFromRows([memory, disk]).entries, [entry]);
  });

  test('does not exist while its memory half is missing', () => {
    const { entries, orphans } = entryFromRows([disk]);
    assert.deepEqual(entries, []);
    assert.deepEqual(
      orphans.map((orphan) => orphan.snapshot),
      [entry.snapshot],
    );
  });

  test('does not exist any more once its disk half is gone', () => {
    const { entries, orphans } = entryFromRows([memory]);
    assert.deepEqual(entries, []);
    assert.deepEqual(
      orphans.map((orphan) => orphan.snapshot),
      [entry.memorySnapshot],
    );
  });

  test('is not made of properties that a snapshot merely inherits', () => {
    const inherited = row('tank/stasis/containers/default/web@mine', diskProperties(entry), 'inherited');
    assert.deepEqual(entryFromRows([inherited]), { entries: [], orphans: [], retired: [] });
  });

  test('is not seen, nor swept, where somebody else made the snapshot', () => {
    assert.deepEqual(entryFromRows([row('tank/stasis/containers/default/web@zrepl_1', {})]), {
      entries: [],
      orphans: [],
      retired: [],
    });
  });

  test('that was destroyed while clones stand on it is not there any more, and is not swept', () => {
    const retired = [disk, memory].map((half) => {
      const own = new Map([
        ...half.properties,
        ['defer_destroy', { value: 'on', source: 'none' as const }] as const,
      ]);
      return { ...half, properties: own };
    });
    const names = retired.map((half) => half.name);
    assert.deepEqual(entryFromRows(retired), { entries: [], orphans: [], retired: names });
  });

  test('has its own name, whatever its snapshots had to be called', () => {
    const at = (half: Row): Row => ({ ...half, name: `${half.name}.2` });
    assert.equal(entryFromRows([at(disk), at(memory)]).entries[0]?.name, 'before');
  });

  test('with a report that was cut off counts as unfinished', () => {
    const cut = row(memory.name, { ...memoryProperties(entry), 'stasis:checkpoint-report': '{"memory":"im' });
    assert.deepEqual(entryFromRows([disk, cut]).entries, []);
  });

  test('whose memory a stock client holds is complete with its disk alone', () => {
    const external = row(entry.snapshot, { ...diskProperties(entry), 'stasis:checkpoint-half': 'external' });
    const [found] = entryFromRows([external]).entries;
    assert.equal(found?.memory, 'external');
    assert.equal(found.memorySnapshot, undefined);
  });

  test("keeps CRIU's reason printable and short, whatever it says", () => {
    const error = `Can't dump\n\tpid 1 ${'é'.repeat(2000)}`;
    const properties = memoryProperties({ ...entry, memory: 'none', memoryError: error });
    for (const value of Object.values(properties)) {
      assert.match(value, /^[\x20-\x7e]*$/);
      assert.ok(value.length <= 1024);
    }
    const [found] = entryFromRows([disk, row(memory.name, properties)]).entries;
    assert.match(found?.memoryError ?? '', /^Can't dump\?\?pid 1/);
  });

  test('of a set is marked with it on both halves', () => {
    const one = { ...entry, set: 'set-1' };
    const rows = [row(entry.snapshot, diskProperties(one)), row(memory.name, memoryProperties(one))];
    assert.deepEqual(entryFromRows(rows).entries, [one]);
    const together = { ...setProperties(one), ...memberProperties(one) };
    assert.deepEqual(together, diskProperties(one), 'what one command says of all, and what is set of each');
  });

  test('of a set that was cut off before its disk was told whose it is is swept', () => {
    const nameless = row(entry.snapshot, setProperties({ ...entry, set: 'set-1' }));
    assert.deepEqual(
      entryFromRows([nameless]).orphans.map(({ snapshot }) => snapshot),
      [entry.snapshot],
    );
  });

  test('of a set that is not whole does not exist, and goes memory first; others stay', async () => {
    const one = { ...entry, set: 'set-1' };
    const rows = [row(entry.snapshot, diskProperties(one)), row(memory.name, memoryProperties(one))];
    const root: Row = {
      ...row('tank/stasis', { 'stasis:unfinished-sets': 'set-0,set-1' }),
      type: 'filesystem',
    };
    const destroyed: string[] = [];
    const zfs = { destroyIdempotent: async (name: string) => void destroyed.push(name) };
    const catalog = new Catalog(zfs);
    await catalog.load([...rows, root]);
    assert.deepEqual(destroyed, [entry.memorySnapshot, entry.snapshot]);
    assert.deepEqual([...catalog.all()], []);
    await catalog.load(rows);
    assert.deepEqual(catalog.ofSet('default', 'before'), [one]);
    assert.deepEqual(catalog.ofSet('default', 'other'), []);
  });

  test('half of which was received is left as it is: the other half may still come', async () => {
    const destroyed: string[] = [];
    const catalog = new Catalog({ destroyIdempotent: async (name: string) => void destroyed.push(name) });
    const halves = [
      row(disk.name, diskProperties(entry), 'received'),
      row(memory.name, memoryProperties(entry), 'received'),
    ];
    for (const half of halves) assert.deepEqual(await catalog.load([half]), []);
    const set = row(`${disk.name}2`, setProperties({ ...entry, set: 'set-1' }), 'received');
    assert.deepEqual(await catalog.load([set]), []);
    assert.deepEqual(destroyed, []);
    await catalog.load(halves);
    assert.deepEqual([...catalog.all()], [entry], 'both are a checkpoint');
  });

  test('ids sort by age and differ within one millisecond', () => {
    const ids = Array.from({ length: 100 }, () => newCheckpointId(1_700_000_000_000));
    assert.equal(new Set(ids).size, 100);
    assert.ok(newCheckpointId(1_700_000_000_000) < newCheckpointId(1_700_000_000_001));
  });
});
