// What a guard holds after many containers' lives is what it held before them.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { memoryOf } from '../../../scripts/benchmarks/shim/process.ts';
import { runDir, shimPid } from '../shim/shims.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import { guarded, withShims } from '../support/guard.ts';
import { ctr, image, runtime, until } from '../support/stack.ts';

/** STASIS_TEST_LEAK=10000 for its full length. */
const CONTAINERS = Number(process.env['STASIS_TEST_LEAK'] ?? 16);
const CLIENTS = 4;
/** After how many parts of them its memory is told. */
const PARTS = CONTAINERS >= 1000 ? 10 : 1;
/**
 * How many go before: what a guard does often is compiled meanwhile, and V8 collects the old part of its heap when that has about doubled,
 * which takes some 700 containers. What freed objects held stays with the process, and is used again: docs/guard.md, Memory.
 */
const BEFORE = Math.min(CONTAINERS, 1000);
/** What garbage collection and the allocator leave or take, in KiB. */
const SLACK_KIB = 4 << 10;
/**
 * The guard has nothing to do with snapshots, and zfs-fuse has no room for so many at once: it takes a thousand mounts, and containerd
 * removes snapshots one after the other, slower than four clients make them.
 */
const SNAPSHOTTER = ['--snapshotter', 'overlayfs'];

withShims(guarded);

test('descriptors, processes, memory and journal of a guard are after many containers what they were', async (t) => {
  const steady = uniqueName('leak');
  t.after(() => removeContainer(steady));
  const flags = ['--runtime', runtime, ...SNAPSHOTTER];
  await ctr('run', '-d', '--null-io', ...flags, image, steady, '/bin/sleep', '100000');
  const guard = await shimPid(steady);
  let count = 0;
  const lives = async (until: number): Promise<void> => {
    while (count < until)
      await ctr('run', '--rm', ...flags, image, uniqueName(`leak${count++}`), '/bin/true');
  };
  const many = async (more: number): Promise<void> => {
    const until = count + more;
    await Promise.all(Array.from({ length: CLIENTS }, () => lives(until)));
  };
  const descriptors = (): number => readdirSync(`/proc/${guard}/fd`).length;
  const children = (): number =>
    readFileSync(`/proc/${guard}/task/${guard}/children`, 'utf8').trim().split(' ').length;
  await many(BEFORE);
  const was = { descriptors: descriptors(), children: children(), memory: memoryOf([guard]) };
  t.diagnostic(`after ${count} containers: ${JSON.stringify(was)} (memory in KiB)`);
  for (let part = 0; part < PARTS; part++) {
    await many(Math.ceil(CONTAINERS / PARTS));
    t.diagnostic(`after ${count}: ${memoryOf([guard]) - was.memory} KiB more`);
  }
  await until('as many descriptors and processes as before', () =>
    descriptors() <= was.descriptors && children() <= was.children ? true : undefined,
  );
  const growth = memoryOf([guard]) - was.memory;
  assert.ok(growth <= SLACK_KIB, `its memory grew by ${growth} KiB`);
  const journals = readdirSync(join(runDir, 'exits')).filter((name) => name.startsWith(`${guard}.`));
  assert.deepEqual(
    journals.map((name) => readFileSync(join(runDir, 'exits', name), 'utf8')),
    [''],
  );
});
