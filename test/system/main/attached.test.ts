// A client that is attached leaves when the task that it has started ends: also when that is rewound.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, suite, test } from 'node:test';
import { Containerd } from '../../../src/containerd/client.ts';
import { count, progress, removeAll, startWriter, statusOf, uniqueName } from '../support/container.ts';
import { image, importImage, runtime, stack, stasis, until } from '../support/stack.ts';

suite('a container whose client is attached', () => {
  const names: string[] = [];
  before(() => importImage());
  after(() => removeAll(...names));

  for (const [what, flags] of [
    ['with a terminal', ['-t']],
    ['without one', []],
  ] as const) {
    test(`${what} goes back to its checkpoint, and the client leaves`, async () => {
      const name = uniqueName('attached');
      names.push(name);
      const options = ['--runtime', runtime, '--snapshotter', 'stasis', ...flags];
      const run = ['ctr', 'run', ...options, image, name, '/bin/perl', '/writer.pl', '0', '0.002'];
      // script(1) is the terminal that `-t` asks for.
      const client = spawn('script', ['-qec', run.join(' '), '/dev/null'], {
        stdio: ['pipe', 'ignore', 'ignore'],
      });
      const left = once(client, 'close');
      await until('the container', async () => (await statusOf(name)) === 'RUNNING' || undefined);
      const before_ = await progress(name, 3);
      await stasis('checkpoint', name, '--name', 'one', '--require-memory');
      await progress(name, 200);
      await stasis('restore', name, '--snapshot', 'one', '--require-memory');
      assert.ok((await count(name)) >= before_);
      await left;
      await progress(name, 3);
      assert.equal(await statusOf(name), 'RUNNING');
      // And once more, now that nobody is there.
      await stasis('checkpoint', name, '--name', 'two', '--require-memory');
      await stasis('restore', name, '--snapshot', 'one', '--require-memory');
      await stasis('restore', name, '--snapshot', 'two', '--require-memory');
      await progress(name, 3);
    });
  }

  test('that deletes the ended task never meets the task that follows it', async (t) => {
    const name = uniqueName('attached');
    names.push(name);
    await startWriter(name);
    await stasis('checkpoint', name, '--name', 'one', '--require-memory');
    const containerd = new Containerd(stack.address);
    let over = false;
    t.after(() => {
      over = true;
      containerd.close();
    });
    const { tasks } = containerd.namespace('default');
    for (let round = 0; round < 5; round++) {
      over = false;
      // From when it has ended, as fast as it can: as clients that were told so do it, one each.
      const client = async (): Promise<void> => {
        await tasks.wait({ containerId: name, execId: '' });
        while (!over) await tasks.delete({ containerId: name }).catch(() => undefined);
      };
      const clients = [client(), client(), client()];
      await stasis('restore', name, '--snapshot', 'one', '--require-memory');
      over = true;
      await Promise.all(clients);
      assert.equal(await statusOf(name), 'RUNNING');
      await progress(name, 3);
      await stasis('checkpoint', name, '--name', 'two', '--require-memory');
      await stasis('rm', name, 'two');
    }
  });
});
