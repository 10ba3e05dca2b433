// What is left when containerd dies in the middle of an operation, and comes back as systemd would have it.
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { count, pidOf, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { attempt, ctr, dev, importImage, stack, stasis, until } from '../support/stack.ts';

async function containerdPid(): Promise<number> {
  const status = JSON.parse(await dev('status', '--json')) as { containerd: { pid: number } };
  return status.containerd.pid;
}

/** Runs a command line, kills containerd when `moment` has come, and starts it again. */
async function withoutContainerd(
  args: readonly string[],
  moment: () => Promise<unknown>,
): Promise<{ exitCode: number | undefined; stderr: string }> {
  const pid = await containerdPid();
  const running = attempt('stasis', args);
  await Promise.race([moment(), running]);
  process.kill(pid, 'SIGKILL');
  await sleep(500);
  await dev('start', 'containerd');
  return running;
}

suite('containerd that dies', () => {
  const web = uniqueName('away');
  const clone = `${web}-clone`;
  before(async () => {
    await importImage();
    await startWriter(web);
    await stasis('checkpoint', web, '--name', 'c', '--require-memory');
  });
  after(() => removeAll(clone, web));

  test('in a rewind: what ran goes on with its memory when it is back', async () => {
    const ahead = await progress(web, 300);
    const pid = await pidOf(web);
    const { exitCode, stderr } = await withoutContainerd(['restore', web, '--snapshot', 'c'], () =>
      until('the container to be stopped', () => (existsSync(`/proc/${pid}`) ? undefined : true)),
    );
    const now = await count(web);
    if (exitCode === 0) {
      assert.ok(now < ahead, 'it was done before');
    } else {
      assert.equal(exitCode, 7, stderr);
      assert.match(stderr, /containerd (does not answer|went away during the call) /);
      assert.ok(now >= ahead, `${now} of ${ahead}: it was not brought back`);
    }
    await progress(web, 3);
  });

  test('in a clone: nothing of it stays', async () => {
    const names = async (...what: string[]): Promise<boolean> =>
      (await ctr(...what)).split('\n').some((line) => line.split(/\s/)[0] === clone);
    const args = ['clone', web, '--from', 'c', '--name', clone];
    const { exitCode, stderr } = await withoutContainerd(args, () =>
      until('its record', async () => ((await names('containers', 'ls', '-q')) ? true : undefined)),
    );
    const whole = exitCode === 0;
    if (!whole) assert.equal(exitCode, 7, stderr);
    assert.equal(await names('containers', 'ls', '-q'), whole);
    assert.equal(await names('tasks', 'ls', '-q'), whole);
    assert.equal(await names('snapshots', '--snapshotter', 'stasis', 'ls'), whole);
    assert.deepEqual(readdirSync(join(stack.state, 'run/pending')), []);
  });
});
