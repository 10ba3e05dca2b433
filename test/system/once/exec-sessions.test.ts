import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { inside, progress, removeAll, startWriter, statusOf, uniqueName } from '../support/container.ts';
import {
  attempt,
  ctr,
  datasets,
  importImage,
  readIfThere,
  refused,
  stasis,
  until,
} from '../support/stack.ts';

/** Says in `/session` that it is there, and goes on with a child until there is `/over`. */
const script =
  '/bin/sleep 1000 & echo $! >/session.new; mv /session.new /session; while [ ! -e /over ]; do sleep 0.02; done; kill $!';

suite('exec sessions at a checkpoint', () => {
  const [web, other] = [uniqueName('sessions'), uniqueName('other')].sort() as [string, string];
  let sequence = 0;
  before(async () => {
    await importImage();
    await startWriter(web);
    await startWriter(other);
  });
  after(() => removeAll(web, other));

  interface Begun {
    readonly id: string;
    readonly client: ChildProcess;
    readonly ended: Promise<unknown[]>;
    /** Number of its child inside the container. */
    readonly child: string;
  }

  /** Begins a session of a shell with a child. */
  async function begin(name = web): Promise<Begun> {
    const id = `session-${++sequence}`;
    await ctr('tasks', 'exec', '--exec-id', `${id}-clear`, name, '/bin/rm', '-f', '/session', '/over');
    const client = spawn('ctr', ['tasks', 'exec', '--exec-id', id, name, '/bin/sh', '-c', script], {
      stdio: 'ignore',
    });
    const path = await inside(name, '/session');
    const child = await until('the session', () => readIfThere(path)?.trim());
    return { id, client, ended: once(client, 'exit'), child };
  }

  async function over(name = web): Promise<void> {
    await ctr('tasks', 'exec', '--exec-id', `over-${++sequence}`, name, '/bin/touch', '/over');
  }

  /** Whether a process runs in the container, by its number there. The writer buries none of those that it inherits. */
  async function runs(child: string, name = web): Promise<boolean> {
    const listed = await attempt('ctr', [
      ...['tasks', 'exec', '--exec-id', `look-${++sequence}`, name],
      ...['/bin/sh', '-c', `test -n "$(cat /proc/${child}/cmdline)"`],
    ]);
    return listed.exitCode === 0;
  }

  test('leave: they go on, and a warning names them; a rewind ends them', async () => {
    const { id, ended, client, child } = await begin();
    const result = await attempt('stasis', ['checkpoint', web, '--name', 'left', '--require-memory']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stderr, new RegExp(`is the exec session ${id}:`));
    assert.equal(client.exitCode, null);
    assert.ok(await runs(child));
    await stasis('restore', web, '--snapshot', 'left', '--require-memory');
    assert.deepEqual(await ended, [137, null]);
    await progress(web, 2);
    assert.equal(await runs(child), false);
  });

  test('refuse: nothing is taken while there is one, and it is named', async () => {
    const { id, ended } = await begin();
    const before = datasets().filter((name) => name.includes('@'));
    for (const args of [[web], [web, '--disk-only'], [web, other], [web, '--exit']]) {
      const said = await refused(5, 'checkpoint', ...args, '--exec-sessions', 'refuse');
      assert.match(said, new RegExp(`exec session ${id} of ${web} runs`), args.join(' '));
      assert.match(said, /--exec-sessions wait, kill or leave/);
    }
    assert.deepEqual(
      datasets().filter((name) => name.includes('@')),
      before,
    );
    await over();
    assert.deepEqual(await ended, [0, null]);
    await stasis('checkpoint', web, '--exec-sessions', 'refuse', '--require-memory');
  });

  test('wait: it is taken when they have ended, and the container runs until then', async () => {
    for (const members of [[web], [web, other]]) {
      const { ended } = await begin();
      const args = ['checkpoint', ...members, '--exec-sessions', 'wait', '--require-memory'];
      const taking = attempt('stasis', [...args, '--name', `waited-${members.length}`, '--progress']);
      const early = await Promise.race([taking, progress(web, 20).then(() => progress(other, 20))]);
      assert.equal(typeof early, 'number', 'nobody stands still while it waits');
      await over();
      const result = await taking;
      assert.equal(result.exitCode, 0, result.stderr);
      assert.doesNotMatch(result.stderr, /warning/);
      assert.deepEqual(await ended, [0, null]);
    }
  });

  test('wait: a caller who gives up leaves nothing, and the session goes on', async () => {
    const { ended, client } = await begin();
    const before = datasets();
    const taking = spawn('stasis', ['checkpoint', web, '--exec-sessions', 'wait'], { stdio: 'ignore' });
    const given = once(taking, 'exit');
    await progress(web, 20);
    taking.kill('SIGINT');
    assert.deepEqual(await given, [9, null]);
    assert.deepEqual(datasets(), before);
    assert.equal(client.exitCode, null);
    await over();
    await ended;
    await stasis('checkpoint', web, '--exec-sessions', 'wait'); // its lock is free
  });

  test('kill: they are gone with their children, and are not in the checkpoint', async () => {
    for (const members of [[web], [web, other]]) {
      const { ended, child } = await begin();
      const name = `killed-${members.length}`;
      const args = ['checkpoint', ...members, '--exec-sessions', 'kill', '--require-memory', '--name', name];
      const result = await attempt('stasis', args);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.doesNotMatch(result.stderr, /warning/);
      assert.deepEqual(await ended, [137, null]);
      assert.equal(await runs(child), false);
      await stasis('restore', web, '--snapshot', name, '--require-memory');
      await progress(web, 2);
      assert.equal(await runs(child), false);
    }
  });

  test('in a paused container they cannot end, so wait and kill are refused', async () => {
    const { id, ended, client } = await begin();
    await ctr('tasks', 'pause', web);
    for (const policy of ['wait', 'kill', 'refuse'])
      assert.match(
        await refused(5, 'checkpoint', web, '--exec-sessions', policy),
        policy === 'refuse'
          ? new RegExp(`${id} of ${web} runs`)
          : new RegExp(`${web} is paused, so its exec session ${id} cannot end[^]*tasks resume ${web}`),
      );
    assert.equal(await statusOf(web), 'PAUSED');
    assert.equal(client.exitCode, null);
    await stasis('checkpoint', web, '--exec-sessions', 'leave');
    await ctr('tasks', 'resume', web);
    await over();
    await ended;
  });

  test('with --exit they are killed before the container stands still, and it comes back without them', async () => {
    const { ended, child } = await begin();
    await stasis('checkpoint', web, '--name', 'last', '--exec-sessions', 'kill', '--exit');
    assert.deepEqual(await ended, [137, null]);
    assert.equal(await statusOf(web), 'STOPPED');
    await stasis('restore', web, '--snapshot', 'last', '--require-memory');
    await progress(web, 2);
    assert.equal(await runs(child), false);
    assert.match(readFileSync(await inside(web, '/session'), 'utf8'), /\d/, 'what it wrote is on the disk');
  });
});
