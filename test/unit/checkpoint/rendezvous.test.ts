import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Rendezvous } from '../../../src/checkpoint/rendezvous.ts';

/** Whether a promise has been settled by now. */
async function isOpen(gate: Promise<void>): Promise<boolean> {
  let open = false;
  gate.then(
    () => (open = true),
    () => (open = true),
  );
  for (let n = 0; n < 5; n++) await turn();
  return open;
}

test('a gate opens when all have come, and the second when the snapshot is there too', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let snapshots = 0;
  const gates = new Rendezvous(2, async () => {
    snapshots++;
    await promise;
  });
  const first = gates.still();
  assert.equal(await isOpen(first), false);
  await Promise.all([first, gates.still()]);
  const synced = gates.synced();
  assert.equal(await isOpen(synced), false);
  assert.equal(snapshots, 0, 'no disk is snapshotted while one may still write');
  const other = gates.synced();
  assert.equal(await isOpen(other), false);
  resolve();
  await Promise.all([synced, other]);
  assert.equal(snapshots, 1);
  const dumped = gates.dumped();
  assert.equal(await isOpen(dumped), false, 'none runs on before all are done');
  await Promise.all([dumped, gates.dumped()]);
});

test('where one ran on after the snapshot, all disks are snapshotted anew before the last gate opens', async () => {
  const journal: boolean[] = [];
  const gates = new Rendezvous(2, async (again) => void journal.push(again));
  await Promise.all([gates.synced(), gates.synced()]);
  const dumped = gates.dumped();
  await gates.synced();
  assert.deepEqual(journal, [false, true]);
  assert.equal(await isOpen(dumped), false);
  await Promise.all([dumped, gates.dumped()]);
});

test('a failure reaches those who wait and those who come later, and the first one counts', async () => {
  const gates = new Rendezvous(3, async () => assert.fail('nobody may snapshot'));
  const waiting = gates.still();
  waiting.catch(() => undefined);
  gates.fail(new Error('first'));
  gates.fail(new Error('second'));
  await assert.rejects(waiting, /first/);
  await assert.rejects(gates.still(), /first/);
  await assert.rejects(gates.synced(), /first/);
  await assert.rejects(gates.dumped(), /first/);
  assert.match(String(gates.failed.reason), /first/);
});

test('a snapshot that fails is an error for all', async () => {
  const gates = new Rendezvous(2, async () => {
    throw new Error('the pool is full');
  });
  const results = await Promise.allSettled([gates.synced(), gates.synced()]);
  assert.ok(results.every((result) => result.status === 'rejected' && /full/.test(String(result.reason))));
});
