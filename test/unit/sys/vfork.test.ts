import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freezeOutsideVfork, waitsForVfork } from '../../../src/sys/vfork.ts';

function recording(): { journal: string[]; freeze: () => Promise<void>; thaw: () => Promise<void> } {
  const journal: string[] = [];
  return {
    journal,
    freeze: async () => void journal.push('freeze'),
    thaw: async () => void journal.push('thaw'),
  };
}

test('a cgroup that is met inside vfork is let run for a moment and frozen again', async () => {
  const freezer = recording();
  const answers = [true, true, false];
  await freezeOutsideVfork(
    freezer,
    async () => [7],
    (pids) => {
      assert.deepEqual(pids, [7]);
      return answers.shift() ?? assert.fail('asked once too often');
    },
  );
  assert.deepEqual(freezer.journal, ['freeze', 'thaw', 'freeze', 'thaw', 'freeze']);
});

test('a child that gets no processor for a second is waited for', async () => {
  const freezer = recording();
  const begin = performance.now();
  let waited = true;
  await freezeOutsideVfork(
    freezer,
    async () => [7],
    () => (waited = performance.now() - begin < 1000),
  );
  assert.equal(waited, false);
  assert.equal(freezer.journal.at(-1), 'freeze');
});

test('a child that never calls exec does not keep the cgroup from being frozen', async () => {
  const freezer = recording();
  await freezeOutsideVfork(
    freezer,
    async () => [7],
    () => true,
  );
  assert.equal(freezer.journal.at(-1), 'freeze');
  assert.ok(freezer.journal.length < 50);
});

test('processes that sleep elsewhere, or have ended, do not wait for a vfork', () => {
  assert.equal(waitsForVfork([process.pid, process.ppid, 2 ** 22 + 1]), false);
});
