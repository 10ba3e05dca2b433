// What Ctrl-C leaves: an operation is undone, and says so, or was done, and says that.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  checkpointsOf,
  count,
  pidOf,
  progress,
  removeAll,
  removeContainer,
  startWriter,
  uniqueName,
} from '../support/container.ts';
import { ctr, importImage, stack, stasis, until } from '../support/stack.ts';
import { dumpBegun, newStages, staging } from '../support/staging.ts';

/** Runs the command line and sends it SIGINT when `moment` has come. */
async function interrupted(
  args: readonly string[],
  moment: () => Promise<unknown>,
): Promise<{ code: number; stderr: string }> {
  const child = spawn('stasis', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? -1)));
  await Promise.race([moment(), ended]);
  child.kill('SIGINT');
  return { code: await ended, stderr };
}

suite('Ctrl-C', () => {
  const web = uniqueName('cancel');
  const clones = `${web}-c`;
  before(async () => {
    await importImage();
    await startWriter(web);
    await stasis('checkpoint', web, '--name', 'c', '--require-memory');
  });
  after(() => removeAll(...[1, 2, 3].map((n) => `${clones}${n}`), web));

  test('in a rewind, whenever it comes: what ran goes on with its memory, or the checkpoint runs and it is told', async () => {
    const seen = new Set<number>();
    const stopped = async (): Promise<unknown> => {
      const pid = await pidOf(web);
      return until('the container to be stopped', () => (existsSync(`/proc/${pid}`) ? undefined : true));
    };
    // While it is dumped, the end of which may be before containerd knows of it; and while the other one does not run yet.
    const moments = [
      ...[0, 40, 100, 180].map((ms) => ({ phase: dumpBegun, ms })),
      ...[0, 100, 250].map((ms) => ({ phase: stopped, ms })),
    ];
    for (const { phase, ms } of moments) {
      const ahead = await progress(web, 300);
      const { code, stderr } = await interrupted(['restore', web, '--snapshot', 'c'], async () => {
        await phase();
        await sleep(ms);
      });
      seen.add(code);
      const now = await count(web);
      const when = `${phase.name} + ${ms} ms`;
      if (code === 9) {
        assert.match(stderr, /cancelled \(.* is running/, when);
        assert.ok(now >= ahead, `${now} of ${ahead}: it was not brought back at ${when}`);
      } else {
        assert.equal(code, 0, `${when}: ${stderr}`);
        assert.ok(now < ahead, `${now} of ${ahead}: it was not rewound at ${when}`);
      }
      await progress(web, 3);
    }
    assert.ok(seen.has(9), 'it was cancelled in time at least once');
  });

  test('in a checkpoint: nothing stays where memory is dumped to, also while CRIU is at work', async () => {
    const before = staging();
    for (let round = 0; round < 3; round++) {
      const { code, stderr } = await interrupted(['checkpoint', web, '--name', `x${round}`], async () => {
        await dumpBegun();
        await sleep(round * 25);
      });
      if (code === 0) await stasis('rm', web, `x${round}`);
      else assert.equal(code, 9, stderr);
      await until('the folder to go', () => (newStages(before).length === 0 ? true : undefined), 5000);
      await sleep(100); // in which the shim puts nothing back
      assert.deepEqual(newStages(before), []);
    }
    await progress(web, 3);
  });

  test('in a clone of several: all of them, or none, and no checkpoint that was taken for them', async () => {
    const args = ['clone', web, '--count', '3', '--name', `${clones}{}`];
    const names = async (...what: string[]): Promise<string[]> =>
      (await ctr(...what))
        .split('\n')
        .map((line) => line.split(/\s/)[0] ?? '')
        .filter((name) => name.startsWith(clones))
        .sort();
    // When the first is there, the others are not.
    const { code, stderr } = await interrupted(args, () =>
      until('the first of them', async () =>
        (await names('containers', 'ls', '-q')).length > 0 ? true : undefined,
      ),
    );
    const expected = code === 0 ? [1, 2, 3].map((n) => `${clones}${n}`) : [];
    if (code !== 0) assert.equal(code, 9, stderr);
    assert.deepEqual(await names('containers', 'ls', '-q'), expected);
    assert.deepEqual(await names('tasks', 'ls', '-q'), expected);
    // To containerd; its collector may take them from us later.
    assert.deepEqual(await names('snapshots', '--snapshotter', 'stasis', 'ls'), expected);
    assert.deepEqual(readdirSync(join(stack.state, 'run/pending')), []);
    assert.equal((await checkpointsOf(web)).length, code === 0 ? 2 : 1);
    await removeContainer(...expected);
  });
});
