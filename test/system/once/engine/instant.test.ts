import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { takeInstant, type InstantPlan, type InstantTools } from '../../../../src/checkpoint/instant.ts';
import { stockPlan } from '../../../../src/checkpoint/stock.ts';
import { endStrayCriu } from '../../../../src/criu/stray.ts';
import { Cancelled, DeadlineExceeded, FailedPrecondition } from '../../../../src/errors.ts';
import { CheckpointOptions } from '../../../../src/proto/gen/containerd/runc_options.ts';
import { cgroupPids } from '../../../../src/sys/cgroup.ts';
import { freezerOf } from '../../../../src/sys/cgroup-freezer.ts';
import { rounds, slowness } from '../../support/slowness.ts';
import { count, exists, Lab, missing, refusedByCrun, type Running } from './lab.ts';

const runtimes = [
  ['runc', 'STASIS_RUNC'],
  ['runc-new', 'STASIS_RUNC_NEW'],
  ['crun', 'STASIS_CRUN'],
] as const;
const never = new AbortController().signal;

for (const [label, variable] of runtimes) {
  const lacks =
    missing() ??
    ((process.env[variable] ?? '') === '' ? variable : undefined) ??
    (label === 'crun' ? refusedByCrun() : undefined);
  describe(
    `the frozen instant under ${label}`,
    { skip: lacks === undefined ? false : `needs ${lacks}` },
    () => {
      let lab: Lab;
      let writer: Running;

      before(async () => {
        lab = await Lab.open(process.env[variable]);
        writer = await lab.start({ pause: 0.001 });
      });
      after(() => lab.close());

      const take = (plan: InstantPlan, signal = never, tools: InstantTools = lab.tools) =>
        takeInstant(writer.target, plan, tools, signal);

      /** The promise of every failure: it runs on, and nothing is left. */
      const assertUntouched = async (plan: {
        memory: { imageDir: string };
        disk: { snapshot: string };
      }): Promise<void> => {
        await lab.progress(writer, 3);
        assert.deepEqual(await readdir(plan.memory.imageDir), []);
        assert.ok(!lab.snapshots().includes(plan.disk.snapshot));
        assert.equal(await endStrayCriu([plan.memory.imageDir]), 0);
      };

      // Twenty with the runtime that is ours by default; the others show that they can.
      const times = rounds(label === 'runc' ? 20 : 3);
      test(`${times} checkpoints at random moments restore to the number that the disk holds`, async () => {
        for (let round = 0; round < times; round++) {
          await sleep(Math.random() * 40);
          const plan = lab.plan(writer, `round${round}`);
          const result = await take(plan);
          assert.equal(result.memory, true);
          assert.ok(result.times.frozen > 0n && result.imageBytes > 1_000_000);
          const { running, before } = await lab.restore(plan.disk.snapshot, plan.memory.imageDir);
          // Each step of the writer compares its memory with the disk, and gives up on a difference.
          await lab.progress(running, 3);
          assert.ok(count(running.rootfs) > before, 'it went on from the number on the disk');
          await lab.remove(running);
          await lab.progress(writer, 1);
        }
      });

      test('the image is flat, and nobody but root can read it', async () => {
        const plan = lab.plan(writer, 'modes');
        await take(plan);
        const { imageDir } = plan.memory;
        assert.equal((await stat(imageDir)).mode & 0o777, 0o700);
        for (const name of await readdir(imageDir)) {
          const entry = await stat(join(imageDir, name));
          assert.ok(entry.isFile(), name);
          assert.equal(entry.mode & 0o177, 0, name);
        }
      });

      test('a container that its user paused stays paused, and its checkpoint is whole', async () => {
        const freezer = freezerOf(writer.target.cgroup);
        await freezer.freeze();
        const plan = lab.plan(writer, 'paused');
        const result = await take(plan);
        assert.equal(result.wasPaused, true);
        assert.equal(await freezer.isFrozen(), true);
        await freezer.thaw();
        const { running } = await lab.restore(plan.disk.snapshot, plan.memory.imageDir);
        await lab.progress(running, 3);
        await lab.remove(running);
        await lab.progress(writer, 1);
      });

      test('a dump that fails half-way leaves the container running and nothing behind', async () => {
        const plan = lab.plan(writer, 'fails');
        const { imageDir } = plan.memory;
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', imageDir]);
        try {
          const isNotDumped = (error: unknown): boolean =>
            error instanceof FailedPrecondition && error.reason === 'memory-not-dumped';
          await assert.rejects(take(plan), isNotDumped);
          await assertUntouched(plan);
        } finally {
          execFileSync('umount', [imageDir]);
        }
      });

      test('where memory may fail, the disk alone is kept and the answer says why in CRIU’s words', async () => {
        const held = await lab.start({ args: ['/bin/perl', '-e', undumpable] });
        while (!(await exists(join(held.rootfs, 'ready')))) await sleep(5);
        const plan = lab.plan(held, 'diskonly', { required: false });
        const result = await takeInstant(held.target, plan, lab.tools, never);
        assert.equal(result.memory, false);
        assert.match(result.memoryError, /ghost|large file open/i);
        assert.ok(lab.snapshots().includes(plan.disk.snapshot));
        assert.deepEqual(await readdir(plan.memory.imageDir), []);
        assert.equal(await freezerOf(held.target.cgroup).isFrozen(), false);
        const strict = lab.plan(held, 'strict');
        await assert.rejects(
          takeInstant(held.target, strict, lab.tools, never),
          /cannot be dumped: .*ghost/i,
        );
        assert.ok(!lab.snapshots().includes(strict.disk.snapshot));
        await lab.remove(held);
      });

      // One that dies in the very moment in which the container runs a call for it takes a process of it along: the kernel
      // knows no way around that. Whoever else is killed, nothing may be left, and nothing may stand still.
      test('a CRIU killed at any moment leaves nothing behind, and the container runs on with memory and disk alike', async () => {
        let survived = 0;
        for (let round = 0; round < rounds(8); round++) {
          const plan = lab.plan(writer, `killed${round}`);
          const { imageDir, workDir } = plan.memory;
          const taking = take(plan).then(
            () => 'made',
            () => 'failed',
          );
          await sleep((20 + round * 12) * slowness);
          await endStrayCriu([imageDir, workDir], { timeoutMs: 0 });
          const outcome = await taking;
          if (!(await exists(`/proc/${writer.pid}/exe`))) {
            assert.equal(outcome, 'failed');
            assert.deepEqual(await readdir(imageDir), []);
            assert.ok(!lab.snapshots().includes(plan.disk.snapshot));
            await lab.remove(writer);
            writer = await lab.start({ pause: 0.001 });
            continue;
          }
          survived++;
          if (outcome === 'failed') await assertUntouched(plan);
          await lab.progress(writer, 5);
        }
        assert.ok(survived >= rounds(8) - 1, `${survived} survived`);
      });

      test('a caller that goes away at any moment undoes everything', async () => {
        for (let round = 0; round < rounds(6); round++) {
          const plan = lab.plan(writer, `gone${round}`);
          const gone = new AbortController();
          const taking = take(plan, gone.signal);
          setTimeout(() => gone.abort(), round * 15 * slowness);
          const outcome = await taking.then(
            () => 'made',
            (error: unknown) => error,
          );
          if (outcome === 'made') continue; // it was quicker
          assert.ok(outcome instanceof Cancelled, String(outcome));
          await assertUntouched(plan);
        }
      });

      test('a dump that takes too long is ended, and the container runs on', async () => {
        const plan = lab.plan(writer, 'slow', { timeoutMs: 25 });
        await assert.rejects(take(plan), DeadlineExceeded);
        await assertUntouched(plan);
      });

      test('a snapshot that cannot be made undoes the dump', async () => {
        const plan = lab.plan(writer, 'taken');
        await take(plan);
        const again = { ...lab.plan(writer, 'taken') };
        await assert.rejects(take(again), /exists/);
        assert.deepEqual(await readdir(again.memory.imageDir), []);
        assert.ok(lab.snapshots().includes(again.disk.snapshot), 'the one that was there stays');
        await lab.progress(writer, 3);
      });

      test('an image folder that holds something is refused and left alone', async () => {
        const plan = lab.plan(writer, 'full');
        await writeFile(join(plan.memory.imageDir, 'mine'), 'x');
        await assert.rejects(take(plan), /not empty: it holds mine/);
        assert.deepEqual(await readdir(plan.memory.imageDir), ['mine']);
        await lab.progress(writer, 3);
      });

      test('a container that ends between the freeze and the dump is named as not running', async () => {
        const doomed = await lab.start({ args: ['/bin/sleep', '1000'] });
        const plan = lab.plan(doomed, 'doomed', { required: false });
        const real = freezerOf(doomed.target.cgroup);
        const freezer = {
          isFrozen: () => real.isFrozen(),
          thaw: () => real.thaw(),
          freeze: async () => {
            process.kill(doomed.pid, 'SIGKILL');
            // Its memory goes before it leaves its cgroup, and it counts as running until then.
            while ((await cgroupPids(doomed.target.cgroup)).includes(doomed.pid)) await sleep(1);
            await real.freeze();
          },
        };
        await assert.rejects(
          takeInstant(doomed.target, plan, { ...lab.tools, freezer }, never),
          /is not running|ended while/,
        );
        assert.deepEqual(await readdir(plan.memory.imageDir), []);
        assert.ok(!lab.snapshots().includes(plan.disk.snapshot));
        await assert.rejects(takeInstant(doomed.target, plan, lab.tools, never), /is not running/);
        await lab.remove(doomed);
      });

      test('with exit the container runs no further than its checkpoint', async () => {
        const leaving = await lab.start({ pause: 0 });
        const plan = lab.plan(leaving, 'exit', { exit: true });
        const result = await takeInstant(leaving.target, plan, lab.tools, never);
        assert.equal(result.exited, true);
        while (await exists(`/proc/${leaving.pid}/exe`)) await sleep(5);
        const { running, before } = await lab.restore(plan.disk.snapshot, plan.memory.imageDir);
        assert.equal(before, count(leaving.rootfs), 'the disk did not move after the snapshot');
        await lab.progress(running, 3);
        await lab.remove(running);
        await lab.remove(leaving);
      });

      test('a stock client’s checkpoint lands as plain files in the folder it names', async () => {
        const path = join(lab.folder, `stock-${label}`);
        const workDir = lab.emptyFolder('work');
        const options = CheckpointOptions.fromPartial({
          fileLocks: true,
          externalUnixSockets: true,
          openTcp: true,
        });
        await take(stockPlan(path, options, { workDir, timeoutMs: 60_000 }));
        assert.ok((await readdir(path)).includes('inventory.img'));
        await lab.progress(writer, 3);
      });
    },
  );
}

/** Keeps open a removed file of 8 MB, more than CRIU's ghost limit of 1 MB. */
const undumpable = `
open(my $f, '+>', '/gone') or die; unlink '/gone'; print $f 'x' x 8388608; $f->flush;
open(my $r, '>', '/ready') or die; close $r; sleep 1000 while 1;
`;
