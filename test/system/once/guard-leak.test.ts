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
/** What garbage collection and the allocator leave or take, in KiB. */
const SLACK_KIB = 12 << 10;

withShims(guarded);

test('descriptors, processes, memory and journal of a guard are after many containers what they were', async (t) => {
  const steady = uniqueName('leak');
  t.after(() => removeContainer(steady));
  await ctr('run', '-d', '--null-io', '--runtime', runtime, image, steady, '/bin/sleep', '100000');
  const guard = await shimPid(steady);
  let count = 0;
  const lives = async (until: number): Promise<void> => {
    while (count < until)
      await ctr('run', '--rm', '--runtime', runtime, image, uniqueName(`leak${count++}`), '/bin/true');
  };
  const many = (until: number): Promise<unknown> =>
    Promise.all(Array.from({ length: CLIENTS }, () => lives(until)));
  const descriptors = (): number => readdirSync(`/proc/${guard}/fd`).length;
  const children = (): number =>
    readFileSync(`/proc/${guard}/task/${guard}/children`, 'utf8').trim().split(' ').length;
  await many(Math.min(CONTAINERS / 4, 200));
  const was = { descriptors: descriptors(), children: children(), memory: memoryOf([guard]) };
  await many(count + CONTAINERS);
  await until('as many descriptors and processes as before', () =>
    descriptors() <= was.descriptors && children() <= was.children ? true : undefined,
  );
  const growth = memoryOf([guard]) - was.memory;
  t.diagnostic(`${CONTAINERS} containers, memory ${growth} KiB more of ${was.memory}`);
  assert.ok(growth <= SLACK_KIB, `its memory grew by ${growth} KiB`);
  const journals = readdirSync(join(runDir, 'exits')).filter((name) => name.startsWith(`${guard}.`));
  assert.deepEqual(
    journals.map((name) => readFileSync(join(runDir, 'exits', name), 'utf8')),
    [''],
  );
});
