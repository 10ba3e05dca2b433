// The command line that stasisd keeps ready, on a real stack: it is called, it answers as a process of its own does, and it goes with
// stasisd.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { checkpointsOf, removeAll, startWriter, statusOf, uniqueName } from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import { ended, signal } from '../support/process.ts';
import { attempt, importImage, must, refused, stack, stasis, until } from '../support/stack.ts';
import { dumpBegun } from '../support/staging.ts';

const folder = join(stack.state, 'run/ready');
/** The bundle, which `stasis` runs by Node where nothing is ready. */
const byNode = [join(stack.project, 'scripts/node'), join(stack.project, 'dist/lib/stasis.cjs')] as const;

interface Place {
  readonly pid: number;
  /** Of the place where the next call is made, from 0. */
  readonly number: number;
}

/** Where the next call is made; waits for it. */
const place = (): Promise<Place> =>
  until('a command line to be ready', () => {
    const name = existsSync(folder) ? readdirSync(folder).find((one) => !one.startsWith('.')) : undefined;
    const [, pid, , number] = (name ?? '').split('.');
    if (pid === undefined || !existsSync(`/proc/${pid}`) || existsSync(join(folder, name ?? '', 'call')))
      return undefined;
    return { pid: Number(pid), number: Number(number) };
  });

/** Where the call after the one at this place is made; waits for it. */
const nextPlace = ({ pid, number }: Place): Promise<Place> =>
  until('another place', async () => {
    const next = await place();
    return next.pid === pid && next.number === number ? undefined : next;
  });

suite('the command line that is kept ready', () => {
  const web = uniqueName('ready');
  const clone = `${web}-1`;
  before(async () => {
    await importImage();
    await startWriter(web);
  });
  after(() => removeAll(clone, web));

  test('takes checkpoints, lists and clones, and says what a process of its own says', async () => {
    const first = await place();
    await stasis('checkpoint', web, '--name', 'one', '--require-memory');
    const { containers } = JSON.parse(await stasis('ls', web, '--json')) as {
      containers: { name: string }[];
    };
    assert.deepEqual(
      containers.map(({ name }) => name),
      [web],
    );
    await stasis('clone', web, '--from', 'one', '--name', clone);
    assert.equal(await statusOf(clone), 'RUNNING');
    assert.match(await refused(3, 'rm', web, 'no-such'), /no-such/);
    assert.deepEqual(await place(), { pid: first.pid, number: first.number + 4 });
    const [node, program] = byNode;
    for (const args of [
      ['ls', '-q'],
      ['inspect', web, 'one', '--json'],
      ['rm', web, 'no-such'],
    ]) {
      const [own, theirs] = [await attempt('stasis', args), await attempt(node, [program, ...args])];
      for (const key of ['exitCode', 'stdout', 'stderr'] as const) assert.equal(own[key], theirs[key]);
    }
    assert.equal(statSync(folder).mode & 0o777, 0o700);
  });

  test('Ctrl-C undoes a checkpoint, and so does the end of the caller', async () => {
    for (const name of ['SIGINT', 'SIGKILL'] as const) {
      const first = await place();
      const before = await checkpointsOf(web);
      const child = spawn('stasis', ['checkpoint', web, '--name', 'never'], { stdio: 'ignore' });
      const exit = once(child, 'exit');
      await dumpBegun();
      child.kill(name);
      const [code] = (await exit) as [number | null];
      // Where it was over by then, it is whole.
      const whole = (await checkpointsOf(web)).length > before.length;
      if (name === 'SIGINT') assert.equal(code, whole ? 0 : 9);
      // It ends with its caller; where the command was over first, it has gone on to the next place.
      else if ((await nextPlace(first)).pid !== first.pid) assert.ok(!existsSync(`/proc/${first.pid}`));
      await until('the checkpoint to be undone, or whole', async () => {
        const { exitCode } = await attempt('stasis', ['rm', web, 'never']);
        return exitCode === 0 || exitCode === 3 ? true : undefined;
      });
      assert.deepEqual(await checkpointsOf(web), before);
    }
    await place(); // another one
  });

  test('it ends with stasisd, however that ends, and leaves nothing', async () => {
    const daemon = await OwnDaemon.take();
    try {
      assert.deepEqual(existsSync(folder), false, 'a stop takes it away');
      await daemon.start();
      const { pid } = await place();
      await daemon.kill();
      await ended(pid);
      assert.deepEqual(readdirSync(folder), []);
      assert.match(await refused(7, 'ls'), /cannot reach stasisd/);
      await daemon.start();
      const next = await place();
      signal(next.pid, 'SIGKILL');
      await ended(next.pid);
      assert.match(await must('stasis', ['ls', '-q']), new RegExp(`^${web}$`, 'm'));
      const again = await place();
      assert.notEqual(again.pid, next.pid);
      assert.equal(readdirSync(folder).length, 1);
      await daemon.start((config) => config.replace('[daemon]', '[daemon]\nready_command = "off"'));
      await ended(again.pid);
      assert.equal(existsSync(folder), false);
      assert.match(await must('stasis', ['ls', '-q']), new RegExp(`^${web}$`, 'm'));
    } finally {
      await daemon.giveBack();
    }
    await place();
  });
});
