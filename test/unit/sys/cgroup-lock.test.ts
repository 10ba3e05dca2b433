import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'node:test';
import { expectQuickMoves, withQuickMoves } from '../../../src/sys/cgroup-lock.ts';

/** Descriptors of this process for moves between cgroups. */
function open(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).endsWith('/cgroup.procs');
    } catch {
      return false; // the one by which this was listed
    }
  }).length;
}

/** The last move may still wait for the kernel's lock, for as long as its grace period takes on a busy machine. */
async function closed(): Promise<void> {
  const end = performance.now() + 10_000;
  while (open() > 0 && performance.now() < end) await sleep(5);
  assert.equal(open(), 0);
}

test('quick moves leave the process where it is, and nothing open when the work is done', async () => {
  const before = readFileSync('/proc/self/cgroup', 'utf8');
  const works = [1, 2, 3].map((n) => withQuickMoves(() => sleep(20 * n, n)));
  await sleep(10);
  assert.ok(open() <= 1, 'one series serves all');
  assert.deepEqual(await Promise.all(works), [1, 2, 3]);
  await closed();
  assert.equal(readFileSync('/proc/self/cgroup', 'utf8'), before);
});

test('work that fails fails so, and ends its quick moves', async () => {
  await assert.rejects(
    withQuickMoves(() => Promise.reject(new Error('refused'))),
    /refused/,
  );
  await closed();
});

test('quick moves that were begun for a runtime that does not come end by themselves', async () => {
  const before = readFileSync('/proc/self/cgroup', 'utf8');
  expectQuickMoves();
  expectQuickMoves();
  assert.ok(open() <= 1, 'one series serves all');
  await closed();
  assert.equal(readFileSync('/proc/self/cgroup', 'utf8'), before);
});
