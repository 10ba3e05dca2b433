import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  checkpointsOf,
  count,
  inside,
  progress,
  removeAll,
  startWriter,
  uniqueName,
} from '../support/container.ts';
import { rounds } from '../support/slowness.ts';
import { ctr, importImage, must, readIfThere, stasis } from '../support/stack.ts';

const CHECKPOINTS = rounds(20);

/**
 * The writer compares disk with its own memory before each step: a file that it appends to, and one that it writes
 * through a shared mapping. Torn checkpoints make it stop and say so.
 */
suite('memory and disk of a checkpoint are of one instant', () => {
  const web = uniqueName('web');
  before(importImage);
  after(() => removeAll(web, `${web}-1`, `${web}-1-1`));

  test(`${CHECKPOINTS} checkpoints at random moments of a writing container, each restored in place`, async () => {
    await startWriter(web);
    const counts: number[] = [];
    for (let n = 0; n < CHECKPOINTS; n++) {
      await sleep(Math.random() * 60);
      const least = await count(web);
      await stasis('checkpoint', web, '--name', `c${n}`, '--require-memory');
      counts.push(least);
    }
    const end = await progress(web, 1);
    for (let n = 0; n < CHECKPOINTS; n++) {
      // Older, newer, older …: a rewind must not lose what lies after it.
      const pick = n % 2 === 0 ? n / 2 : CHECKPOINTS - (n + 1) / 2;
      await stasis('restore', web, '--snapshot', `c${pick}`, '--require-memory');
      const now = await progress(web, 2);
      assert.ok(now >= (counts[pick] ?? 0), `c${pick} holds what was written before it`);
      assert.ok(
        pick === CHECKPOINTS - 1 || now < end + 1000,
        `c${pick} does not hold what was written after it`,
      );
      assert.equal(readIfThere(await inside(web, '/torn')), undefined);
    }
    assert.equal((await checkpointsOf(web)).length, CHECKPOINTS, 'no rewind lost a checkpoint');
  });

  test('a restored container can be checkpointed again, and that restores too', async () => {
    await stasis('restore', web, '--snapshot', 'c1');
    const at = await progress(web, 2);
    await stasis('checkpoint', web, '--name', 'again', '--require-memory');
    await progress(web, 20);
    await stasis('restore', web, '--snapshot', 'again', '--require-memory');
    const now = await progress(web, 1);
    assert.ok(now >= at);
  });

  test('a clone, and a clone of a clone, go on from the number that they were taken at, each on its own disk', async () => {
    await stasis('clone', web, '--from', 'again');
    const first = await progress(`${web}-1`, 2);
    const cloned = await must('stasis', ['clone', `${web}-1`, '--json']);
    const [taken] = (JSON.parse(cloned) as { clones: { memory: boolean }[] }).clones;
    assert.ok(taken?.memory, `without its memory it starts anew: ${cloned}`);
    const second = await progress(`${web}-1-1`, 2);
    assert.ok(
      second >= first,
      `the second clone counts ${second}, and the first one had ${first} before it was made`,
    );
    await ctr('tasks', 'exec', '--exec-id', uniqueName(), `${web}-1`, 'sh', '-c', 'echo mine >/own');
    assert.equal(readIfThere(await inside(`${web}-1-1`, '/own')), undefined);
    assert.equal(readIfThere(await inside(web, '/own')), undefined);
    assert.equal(readIfThere(await inside(`${web}-1`, '/own')), 'mine\n');
    const tasks = await ctr('tasks', 'ls', '-q');
    for (const name of [web, `${web}-1`, `${web}-1-1`]) {
      assert.ok(tasks.split('\n').includes(name));
      const pid = /^\/proc\/(\d+)\//.exec(await inside(name, '/'))?.[1];
      const cgroup = readFileSync(`/proc/${pid}/cgroup`, 'utf8');
      assert.match(cgroup, new RegExp(`^\\d+:(.*\\bmemory\\b.*)?:.*/${name}$`, 'm'), 'it has its own cgroup');
    }
  });
});
