// A stasisd that is killed in the middle of a restore in place: what ran goes on with its memory, or what was restored runs.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpointsOf, pidOf, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import { killingZfs } from '../support/killing-zfs.ts';
import { dumpBegun } from '../support/staging.ts';
import { attempt, ctr, importImage, stack, stasis, until } from '../support/stack.ts';

/** How far the writer goes on before each restore. */
const AHEAD = 50;

/** The task works on the disk that its container has, and would be given again. */
async function assertOnItsDisk(name: string, when: string): Promise<void> {
  const table = readFileSync(`/proc/${await pidOf(name)}/mountinfo`, 'utf8');
  const dataset = /^\S+ \S+ \S+ \S+ \/ .* - \S+ (\S+)/m.exec(table)?.[1]?.split('/').pop() ?? 'no dataset';
  const mounts = await ctr('snapshots', '--snapshotter', 'stasis', 'mounts', '/target', name);
  assert.ok(
    mounts.includes(`+${dataset}/rootfs `),
    `${when}: it works on ${dataset}, and would be given ${mounts}`,
  );
}

suite('kill -9 of stasisd in a restore in place loses no memory', () => {
  const web = uniqueName('web');
  const removed = uniqueName('removed');
  let daemon: OwnDaemon;
  /** How far it had counted at its checkpoint, or before. */
  let at = 0;
  before(async () => {
    await importImage();
    killingZfs.install();
    for (const name of [web, removed]) {
      await startWriter(name);
      if (name === web) at = await progress(web, 1);
      await stasis('checkpoint', name, '--name', 'c', '--require-memory');
    }
    daemon = await OwnDaemon.take();
  });
  after(async () => {
    await daemon.giveBack();
    await removeAll(web, removed);
    killingZfs.remove();
  });

  const names = (folder: string): string[] => {
    const path = join(stack.state, 'run', folder);
    return existsSync(path) ? readdirSync(path) : [];
  };

  /**
   * What must hold when it has been started again.
   * @param ahead how far it had counted before the restore
   * @param told what the command has answered, which may have come to its end before
   */
  async function assertWhole(
    ahead: number,
    told: { exitCode: number | undefined },
    when: string,
  ): Promise<'former' | 'restored'> {
    // Between the end of a restore and its answer: it is over, and nobody was told.
    const isOver = names('rewinds').length === 0;
    await daemon.start();
    await until(`all to be finished, ${when}`, () =>
      names('rewinds').length === 0 && names('staging').length === 0 ? true : undefined,
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${daemon.output}`);
    });
    const now = await progress(web, 2).catch((error: unknown) => {
      throw new Error(`${when}: ${String(error)}\n${daemon.output}`);
    });
    assert.doesNotMatch(daemon.output, /"memory":false|memory=false/, when);
    await assertOnItsDisk(web, when);
    const restored =
      told.exitCode === 0 ||
      daemon.output.includes('a restore that was cut off was done') ||
      (isOver && now < ahead && now > at);
    if (!restored) assert.ok(now >= ahead, `${now} of ${ahead}, ${when}: ${daemon.output}`);
    return restored ? 'restored' : 'former';
  }

  test('before and after each zfs command', async () => {
    // Twice, so that the sweep of the second has as little to do as those of the starts that come.
    for (let time = 0; time < 2; time++) {
      killingZfs.reset();
      await daemon.start(killingZfs.use);
      await killingZfs.quiet();
    }
    const start = killingZfs.calls();
    await stasis('restore', web, '--require-memory');
    const all = killingZfs.calls();
    await daemon.kill();
    assert.ok(all > start, 'a restore calls zfs');
    const outcomes: string[] = [];
    for (let call = start + 1; call <= all; call++) {
      for (const when of ['KILL_BEFORE', 'KILL_AFTER']) {
        killingZfs.reset();
        await daemon.start(killingZfs.use, { [when]: String(call) });
        await killingZfs.quiet();
        const ahead = await progress(web, AHEAD);
        const told = await attempt('stasis', ['restore', web, '--require-memory']);
        await daemon.ended();
        outcomes.push(await assertWhole(ahead, told, `${when} ${call}`));
      }
    }
    assert.equal(outcomes[0], 'former', 'before its first command nothing can have been restored');
  });

  test('at each of its steps', async () => {
    const stopped = async (): Promise<unknown> => {
      const pid = await pidOf(web);
      return until('the container to be stopped', () => (existsSync(`/proc/${pid}`) ? undefined : true));
    };
    const outcomes = new Set<string>();
    await daemon.start();
    for (const [reached, ms] of [
      [dumpBegun, 0],
      [dumpBegun, 30],
      ...[0, 20, 40, 60, 90, 120, 160].map((later) => [stopped, later] as const),
    ] as const) {
      const ahead = await progress(web, AHEAD);
      const moment = reached();
      const restoring = attempt('stasis', ['restore', web, '--require-memory']);
      await moment;
      await sleep(ms);
      await daemon.kill();
      outcomes.add(await assertWhole(ahead, await restoring, `${reached.name} + ${ms} ms`));
    }
    assert.deepEqual([...outcomes].sort(), ['former', 'restored']);
  });

  test('the checkpoint is whole, and both ways are open', async () => {
    assert.deepEqual(await checkpointsOf(web), ['c']);
    await stasis('restore', web, '--require-memory');
    await progress(web, 2);
    await stasis('checkpoint', web, '--name', 'later', '--require-memory');
    await stasis('rm', web, 'later');
  });

  test('a container that is removed meanwhile does not come back', async () => {
    const pid = await pidOf(removed);
    const restoring = attempt('stasis', ['restore', removed, '--require-memory']);
    await until('the container to be stopped', () => (existsSync(`/proc/${pid}`) ? undefined : true));
    await daemon.kill();
    await restoring;
    await attempt('ctr', ['tasks', 'rm', '-f', removed]);
    await ctr('containers', 'rm', removed);
    await daemon.start();
    await until('its note to be gone', () => (names('rewinds').length === 0 ? true : undefined));
    assert.doesNotMatch(await ctr('tasks', 'ls', '-q'), new RegExp(removed));
    assert.doesNotMatch(await ctr('containers', 'ls', '-q'), new RegExp(removed));
  });
});
