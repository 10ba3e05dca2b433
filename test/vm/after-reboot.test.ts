// The machine has been rebooted, and the stack brought up again, since before-reboot.test.ts.
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import { checkpointsOf, progress, removeAll, statusOf } from '../system/support/container.ts';
import { ctr, datasets, must, stack, stasis } from '../system/support/stack.ts';
import { bootId, noted, web } from './reboot.ts';

suite('after a reboot', () => {
  after(() => removeAll(web));

  test('every dataset is there, and the container without its task', async () => {
    assert.notEqual(bootId(), noted().bootId);
    assert.deepEqual(datasets(), noted().datasets);
    assert.equal(await statusOf(web), undefined);
    assert.deepEqual(await checkpointsOf(web), ['kept']);
  });

  test('its disk is mounted when somebody asks for it', async () => {
    const mounts = await must('ctr', ['snapshots', '--snapshotter', 'stasis', 'mounts', '/mnt', web]);
    const source = / (\S+) \/mnt -o /.exec(mounts)?.[1];
    assert.ok(source?.startsWith(stack.state), mounts);
    await must('test', ['-s', `${source}/appended`]);
  });

  test('it comes back from its checkpoint, memory and disk', async () => {
    await stasis('restore', web, '--snapshot', 'kept', '--require-memory');
    assert.ok((await progress(web, 2)) >= noted().count);
    assert.match(await ctr('tasks', 'metrics', web), /pids\.current +1/);
  });
});
