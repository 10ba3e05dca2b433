import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  checkpointsOf,
  progress,
  removeAll,
  removeContainer,
  startWriter,
  uniqueName,
} from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import { killingZfs } from '../support/killing-zfs.ts';
import { attempt, ctr, datasets, importImage, stack, stasis, until } from '../support/stack.ts';

suite('kill -9 of stasisd leaves a whole checkpoint or none', () => {
  const web = uniqueName('web');
  let daemon: OwnDaemon;
  before(async () => {
    await importImage();
    killingZfs.install();
    await startWriter(web);
    daemon = await OwnDaemon.take();
  });
  after(async () => {
    await daemon.giveBack();
    await removeAll(web);
    killingZfs.remove();
  });

  /** What must hold after a kill at any instant and a start again. */
  async function assertSwept(name: string): Promise<boolean> {
    await daemon.start();
    await progress(web, 2);
    const whole = (await checkpointsOf(web)).includes(name);
    const left = datasets().filter((dataset) => dataset.endsWith(`@${name}`));
    assert.equal(
      left.length,
      whole ? 2 : 0,
      `checkpoint ${name} is ${whole ? 'whole' : 'none'}: ${left.join(' ')}`,
    );
    assert.deepEqual(
      datasets().filter((dataset) => dataset.startsWith(`${stack.root}/reading/`)),
      [],
    );
    await until('the staging folder to be empty', () =>
      readdirSync(join(stack.state, 'run/staging')).length === 0 ? true : undefined,
    );
    await daemon.kill();
    return whole;
  }

  /** How many zfs calls a start makes, and how many a start and a checkpoint. */
  async function countCalls(): Promise<{ start: number; all: number }> {
    // Twice, so that the sweep of the second has as little to do as those of the starts that come.
    for (let time = 0; time < 2; time++) {
      killingZfs.reset();
      await daemon.start(killingZfs.use);
      await killingZfs.quiet();
    }
    const start = killingZfs.calls();
    await stasis('checkpoint', web, '--name', 'counted', '--require-memory');
    const all = killingZfs.calls();
    await daemon.kill();
    return { start, all };
  }

  test('before and after each zfs command of a checkpoint', async () => {
    await daemon.start();
    await stasis('checkpoint', web, '--name', 'first', '--require-memory'); // makes the memory dataset
    const { start, all } = await countCalls();
    assert.ok(all > start, 'a checkpoint calls zfs');
    const outcomes: boolean[] = [];
    for (let call = start + 1; call <= all; call++) {
      for (const when of ['KILL_BEFORE', 'KILL_AFTER']) {
        killingZfs.reset();
        await daemon.start(killingZfs.use, { [when]: String(call) });
        await killingZfs.quiet();
        const name = `${when === 'KILL_BEFORE' ? 'before' : 'after'}-${call}`;
        const result = await attempt('stasis', ['checkpoint', web, '--name', name, '--require-memory']);
        await daemon.ended();
        assert.equal(result.exitCode, 7, `the client is told that stasisd went away: ${result.stderr}`);
        outcomes.push(await assertSwept(name));
      }
    }
    assert.equal(outcomes.at(-1), true, 'after its last command the checkpoint is whole');
    assert.equal(outcomes[0], false, 'before its first command there is none');
  });

  test('at random moments of a checkpoint', async () => {
    for (let n = 0; n < 5; n++) {
      await daemon.start();
      const name = `random-${n}`;
      const taking = attempt('stasis', ['checkpoint', web, '--name', name, '--require-memory']);
      await sleep(80 + n * 90);
      await daemon.kill();
      await taking;
      await assertSwept(name);
    }
    await daemon.start();
    await stasis('checkpoint', web, '--name', 'still', '--require-memory');
    await stasis('restore', web, '--snapshot', 'still', '--require-memory');
    await progress(web, 2);
    await daemon.kill();
  });

  test('and at random moments of a clone: no half-made container, no stray disk', async () => {
    for (let n = 0; n < 4; n++) {
      await daemon.start();
      const cloning = attempt('stasis', ['clone', web, '--from', 'still', '--name', `${web}-x${n}`]);
      await sleep(60 + n * 100);
      await daemon.kill();
      const { exitCode } = await cloning;
      await daemon.start();
      const pending = join(stack.state, 'run/pending'); // made at the first need
      await until('what the kill left to be removed', () =>
        !existsSync(pending) || readdirSync(pending).length === 0 ? true : undefined,
      );
      const known = (await ctr('containers', 'ls', '-q')).split('\n').includes(`${web}-x${n}`);
      if (exitCode === 0) assert.ok(known);
      if (known) await progress(`${web}-x${n}`, 1);
      else assert.doesNotMatch(await ctr('tasks', 'ls', '-q'), new RegExp(`${web}-x${n}`));
      await removeContainer(`${web}-x${n}`);
      await daemon.kill();
    }
    await progress(web, 1);
  });
});
