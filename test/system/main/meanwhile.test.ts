// What clients of containerd do to a container while it is being rewound.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Containerd } from '../../../src/containerd/client.ts';
import {
  pidOf,
  progress,
  removeAll,
  removeContainer,
  startWriter,
  statusOf,
  uniqueName,
} from '../support/container.ts';
import { attempt, ctr, importImage, stack, stasis, until } from '../support/stack.ts';
import { dumpBegun } from '../support/staging.ts';

/** What can be waited for in a rewind: the dump before its stop is begun; the container is gone. */
const phases = {
  dumping: dumpBegun,
  stopped: async (name: string) => {
    const pid = await pidOf(name);
    await until('the container to be stopped', () => (existsSync(`/proc/${pid}`) ? undefined : true));
  },
} as const;

/** Rewinds a container and does something to it at some moment. */
async function rewindWhile(
  name: string,
  phase: keyof typeof phases,
  ms: number,
  work: () => Promise<unknown>,
): Promise<{ exitCode: number | undefined; stderr: string }> {
  const reached = phases[phase](name);
  const rewound = attempt('stasis', ['restore', name]);
  await Promise.race([reached, rewound]);
  await sleep(ms);
  await work();
  await reached;
  return rewound;
}

const containerd = new Containerd(stack.address);

suite('while a container is rewound', () => {
  const [paused, removed, cloned] = [uniqueName('paused'), uniqueName('removed'), uniqueName('cloned')];
  before(importImage);
  after(async () => {
    containerd.close();
    await removeAll(paused, removed, cloned);
  });

  test('a pause holds what runs, or is refused: nothing stays frozen that is not there', async () => {
    await startWriter(paused);
    await stasis('checkpoint', paused, '--name', 'c', '--require-memory');
    // One that comes during the dump is heeded right after the stop, before its end is known.
    for (const ms of [0, 20, 50, 100, 150, 200]) {
      const { exitCode, stderr } = await rewindWhile(paused, 'dumping', ms, () =>
        attempt('ctr', ['tasks', 'pause', paused]),
      );
      assert.equal(exitCode, 0, `${ms} ms: ${stderr}`);
      if ((await statusOf(paused)) === 'PAUSED') await ctr('tasks', 'resume', paused);
      await progress(paused, 3);
    }
    await ctr('tasks', 'rm', '-f', paused);
    await ctr('containers', 'rm', paused);
  });

  test('a removal leaves no task behind without a container, and the checkpoint brings it back', async () => {
    await startWriter(removed);
    await stasis('checkpoint', removed, '--name', 'c', '--require-memory');
    // During the dump, between the tasks, and while the new one is being made and started.
    const moments = [
      ['dumping', 20],
      ['dumping', 60],
      ['dumping', 80],
      ['dumping', 150],
      ['stopped', 0],
      ['stopped', 100],
      ['stopped', 200],
      ['stopped', 300],
    ] as const;
    for (const [phase, ms] of moments) {
      const { exitCode, stderr } = await rewindWhile(removed, phase, ms, async () => {
        await attempt('ctr', ['tasks', 'rm', '-f', removed], 10_000);
        await attempt('ctr', ['containers', 'rm', removed]);
      });
      const when = `${phase} + ${ms} ms: ${stderr}`;
      if (exitCode !== 0)
        assert.match(stderr, new RegExp(`container ${removed} (was removed|could not)`), when);
      const isThere = (await ctr('containers', 'ls', '-q')).split('\n').includes(removed);
      const status = await statusOf(removed);
      if (!isThere) assert.equal(status, undefined, `a task without a container, ${when}`);
      await stasis('restore', removed);
      await progress(removed, 3);
    }
  });

  test('a clone whose record is removed while it is made is gone as a whole, and the next of its name runs', async () => {
    await startWriter(cloned);
    await stasis('checkpoint', cloned, '--name', 'c', '--require-memory');
    const copy = `${cloned}-copy`;
    const { containers } = containerd.namespace('default');
    const isDone = async (call: Promise<unknown>): Promise<boolean> =>
      call.then(
        () => true,
        () => false,
      );
    // ctr would look for a task first, and then it is too late.
    for (const ms of [0, 0, 5, 10, 15]) {
      const cloning = attempt('stasis', ['clone', cloned, '--name', copy]);
      while (!(await isDone(containers.get({ id: copy })))) await sleep(1);
      await sleep(ms);
      await containers.delete({ id: copy });
      const { exitCode, stderr } = await cloning;
      assert.notEqual(exitCode, 0, 'its record was removed while it was being made');
      assert.match(stderr, new RegExp(`${copy} `), stderr);
      assert.doesNotMatch(
        await ctr('tasks', 'ls', '-q'),
        new RegExp(copy),
        `a task without a container: ${stderr}`,
      );
      assert.doesNotMatch(await ctr('containers', 'ls', '-q'), new RegExp(copy));
    }
    await stasis('clone', cloned, '--name', copy);
    await progress(copy, 2);
    await removeContainer(copy);
  });
});
