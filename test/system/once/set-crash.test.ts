import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, suite, test } from 'node:test';
import { checkpointsOf, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import { killingZfs } from '../support/killing-zfs.ts';
import { attempt, datasets, importImage, stack, stasis } from '../support/stack.ts';

suite('kill -9 of stasisd leaves a whole set or none', () => {
  const members = [uniqueName('one'), uniqueName('two')];
  let daemon: OwnDaemon;
  before(async () => {
    await importImage();
    killingZfs.install();
    for (const name of members) await startWriter(name);
    daemon = await OwnDaemon.take();
  });
  after(async () => {
    await daemon.giveBack();
    await removeAll(...members);
    killingZfs.remove();
  });

  /** What must hold after a kill at any instant and a start again. */
  async function assertSwept(name: string): Promise<boolean> {
    for (const member of members) await progress(member, 1); // without stasisd, too
    await daemon.start();
    const have = await Promise.all(
      members.map(async (member) => (await checkpointsOf(member)).includes(name)),
    );
    assert.ok(
      have.every((one) => one === have[0]),
      `all have ${name}, or none: ${have.join(' ')}`,
    );
    const left = datasets().filter((dataset) => dataset.endsWith(`@${name}`));
    assert.equal(left.length, have[0] === true ? 4 : 0, left.join(' '));
    const note = ['get', '-H', '-o', 'value', 'stasis:unfinished-sets', stack.root];
    assert.equal(execFileSync('zfs', note, { encoding: 'utf8' }).trim(), '-');
    await daemon.kill();
    return have[0] === true;
  }

  test('before and after each zfs command', async () => {
    await daemon.start();
    await stasis('checkpoint', ...members, '--name', 'first', '--require-memory'); // makes the memory datasets
    await daemon.kill();
    // Twice, so that the sweep of the second has as little to do as those of the starts that come.
    for (let time = 0; time < 2; time++) {
      killingZfs.reset();
      await daemon.start(killingZfs.use);
      await killingZfs.quiet();
    }
    const start = killingZfs.calls();
    await stasis('checkpoint', ...members, '--name', 'counted', '--require-memory');
    const all = killingZfs.calls();
    await daemon.kill();
    const outcomes: boolean[] = [];
    for (let call = start + 1; call <= all; call++) {
      // Before a command is after the one before it.
      const edge = call === start + 1 || call === all;
      for (const when of edge ? ['KILL_BEFORE', 'KILL_AFTER'] : ['KILL_AFTER']) {
        killingZfs.reset();
        await daemon.start(killingZfs.use, { [when]: String(call) });
        await killingZfs.quiet();
        const name = `${when === 'KILL_BEFORE' ? 'before' : 'after'}-${call}`;
        const result = await attempt('stasis', [
          'checkpoint',
          ...members,
          '--name',
          name,
          '--require-memory',
        ]);
        await daemon.ended();
        assert.equal(result.exitCode, 7, `the client is told that stasisd went away: ${result.stderr}`);
        outcomes.push(await assertSwept(name));
      }
    }
    assert.equal(outcomes.at(-1), true, 'after its last command the set is whole');
    assert.equal(outcomes.at(-2), false, 'and before it there is none, whatever of it was whole');
    assert.equal(outcomes[0], false);
  });

  test('and the next set is taken and restored', async () => {
    await daemon.start();
    await stasis('checkpoint', ...members, '--name', 'still', '--require-memory');
    await stasis('restore', '--set', 'still', '--require-memory');
    for (const member of members) await progress(member, 2);
    await daemon.kill();
  });
});
