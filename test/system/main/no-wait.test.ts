import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { count, progress, removeAll, startWriter, statusOf, uniqueName } from '../support/container.ts';
import { attempt, datasets, importImage, must, refused, stack, stasis, until } from '../support/stack.ts';

interface Listed {
  containers: { checkpoints: { name: string; storing: boolean; storeError: string | null }[] }[];
}

suite('a checkpoint that is not waited for', () => {
  const web = uniqueName('web');
  before(async () => {
    await importImage();
    await startWriter(web, { megabytes: 16 });
    await stasis('checkpoint', web, '--name', 'first', '--require-memory'); // makes the memory dataset
  });
  after(() => removeAll(web));

  async function listed(name: string): Promise<Listed['containers'][0]['checkpoints'][0] | undefined> {
    const { containers } = JSON.parse(await stasis('ls', web, '--json')) as Listed;
    return containers.flatMap(({ checkpoints }) => checkpoints).find((one) => one.name === name);
  }

  /** Snapshots of that name, of the disk and of the memory. */
  const snapshots = (name: string): string[] =>
    datasets().filter((dataset) => dataset.includes(web) && dataset.endsWith(`@${name}`));

  test('is answered when the container runs on, is listed as storing, and becomes whole', async () => {
    const answer = JSON.parse(
      await stasis('checkpoint', web, '--name', 'later', '--no-wait', '--require-memory', '--json'),
    ) as { checkpoint: { storing: boolean; memory: string } };
    assert.equal(answer.checkpoint.memory, 'image');
    assert.equal(answer.checkpoint.storing, true);
    assert.equal(await statusOf(web), 'RUNNING');
    await progress(web, 2);
    assert.match(await stasis('wait', web, 'later'), new RegExp(`^${web}@later: memory `));
    assert.deepEqual(await listed('later'), { ...(await listed('later')), storing: false, storeError: null });
    assert.equal(snapshots('later').length, 2);
    assert.match(await stasis('wait', web), /@later/); // one that is whole is not waited for
    await refused(3, 'wait', web, 'nothing');
  });

  test('a restore and a checkpoint right after it wait until it is whole', async () => {
    await stasis('checkpoint', web, '--name', 'one', '--no-wait', '--require-memory');
    await stasis('checkpoint', web, '--name', 'two', '--no-wait', '--require-memory');
    const before = await count(web);
    await stasis('restore', web, '--snapshot', 'one', '--require-memory');
    assert.ok((await count(web)) <= before + 1000);
    await progress(web, 2);
    assert.equal(snapshots('one').length, 2);
    assert.equal(snapshots('two').length, 2);
    const set = uniqueName('set');
    const other = uniqueName('other');
    await startWriter(other);
    try {
      await stasis('checkpoint', web, other, '--name', set, '--no-wait', '--require-memory');
      await stasis('wait', web, set);
      await stasis('restore', '--set', set, '--require-memory');
      await progress(other, 2);
    } finally {
      await removeAll(other);
    }
  });

  test('that cannot be stored says so in ls and wait and leaves nothing; the next one ends that', async () => {
    const big = uniqueName('big');
    await startWriter(big, { megabytes: 24 });
    await stasis('checkpoint', big, '--name', 'disk', '--disk-only'); // makes the memory dataset
    const memory = `${stack.root}/containers/default/${big}/memory`;
    const used = Number(await must('zfs', ['get', '-Hp', '-o', 'value', 'used', memory]));
    await must('zfs', ['set', `quota=${used + 4 * 1024 * 1024}`, memory]);
    const full = (): string[] =>
      datasets().filter((name) => name.includes(`/${big}`) && name.endsWith('@full'));
    try {
      await stasis('checkpoint', big, '--name', 'full', '--no-wait', '--require-memory');
      const said = await refused(6, 'wait', big, 'full');
      assert.match(said, /no room/);
      assert.doesNotMatch(said, new RegExp(stack.root), 'no dataset is named');
      assert.match(await stasis('ls', big), /not stored/);
      assert.match(await stasis('inspect', big, 'full'), /not stored/);
      assert.deepEqual(full(), []);
      await progress(big, 2);
      await refused(3, 'restore', big, '--snapshot', 'full');
    } finally {
      await must('zfs', ['set', 'quota=none', memory]);
    }
    await stasis('checkpoint', big, '--name', 'full', '--require-memory');
    assert.equal(full().length, 2);
    assert.doesNotMatch(await stasis('ls', big), /not stored/);
    await removeAll(big);
  });

  test('is not for one that is to end with it', async () => {
    await refused(2, 'checkpoint', web, '--no-wait', '--exit');
    assert.equal(await statusOf(web), 'RUNNING');
  });

  test('is whole when stasisd has been told to stop meanwhile', async () => {
    await stasis('checkpoint', web, '--name', 'stopped', '--no-wait', '--require-memory');
    await must(`${stack.project}/scripts/dev`, ['restart', 'stasisd', '--state', stack.state]);
    await until('stasisd to answer', async () =>
      (await attempt('stasis', ['ls', web])).exitCode === 0 ? true : undefined,
    );
    assert.equal(snapshots('stopped').length, 2);
    await stasis('restore', web, '--snapshot', 'stopped', '--require-memory');
  });
});
