// A shim that is stopped, or hangs: its containers can be listed, and nothing that needs it is begun.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { shimPid } from '../shim/shims.ts';
import { count, pidOf, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { signal } from '../support/process.ts';
import { attempt, importImage, stasis } from '../support/stack.ts';

suite('a shim that does not answer', () => {
  const web = uniqueName('silent');
  let shim = 0;
  before(async () => {
    await importImage();
    await startWriter(web);
    await stasis('checkpoint', web, '--name', 'c', '--require-memory');
    shim = await shimPid(web);
    signal(shim, 'SIGSTOP');
  });
  after(async () => {
    signal(shim, 'SIGCONT');
    await removeAll(web);
  });

  test('is named as the reason by what needs it', async () => {
    const commands = [
      ['checkpoint', web],
      ['restore', web],
      ['clone', web],
    ];
    const answers = await Promise.all(commands.map((command) => attempt('stasis', command)));
    for (const [index, { exitCode, stderr }] of answers.entries()) {
      assert.equal(exitCode, 7, `${String(commands[index])}: ${stderr}`);
      assert.match(
        stderr,
        new RegExp(`the shim of container ${web} does not answer\\n {2}next: .*stasis shim ls`),
      );
    }
  });

  test('leaves its containers in the list, whose status nobody knows', async () => {
    const { containers } = JSON.parse(await stasis('ls', web, '--json')) as {
      containers: { name: string; status: string; checkpoints: { name: string }[] }[];
    };
    const [found] = containers;
    assert.deepEqual([found?.status, found?.checkpoints.map(({ name }) => name)], ['unknown', ['c']]);
  });

  test('has all go on when it does', async () => {
    signal(shim, 'SIGCONT');
    const ahead = await progress(web, 3);
    assert.ok((await pidOf(web)) !== undefined);
    await stasis('restore', web, '--snapshot', 'c', '--require-memory');
    assert.ok((await count(web)) < ahead, 'it was brought back');
    await progress(web, 3);
  });
});
