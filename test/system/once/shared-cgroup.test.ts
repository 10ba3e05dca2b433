// Another containerd of this host has a container of the same namespace and name, and so of the same cgroup. A process in a
// pid namespace of its own stands in for it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { before, test, type TestContext } from 'node:test';
import { foldersAt, joinCgroup } from '../../../src/sys/cgroup.ts';
import { pidOf, progress, removeContainer, startWriter, uniqueName } from '../support/container.ts';
import { attempt, ctr, image, importImage, must, runtime, stasis, until } from '../support/stack.ts';

before(importImage);

/** A stranger in a container's cgroup. @returns its pid */
async function stranger(t: TestContext, container: string): Promise<number> {
  const outer = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sleep', '600'], { stdio: 'ignore' });
  const pid = await until('the stranger', () => {
    const [child] = readFileSync(`/proc/${outer.pid}/task/${outer.pid}/children`, 'utf8').trim().split(' ');
    return child === undefined || child === '' ? undefined : Number(child);
  });
  t.after(() => outer.kill('SIGKILL'));
  await joinCgroup(`/default/${container}`, pid);
  return pid;
}

test('a cgroup that is in use is refused before anything is made', async (t) => {
  const name = uniqueName('shared');
  t.after(() => removeContainer(name));
  // A new cpuset takes no process before it is told its processors.
  const folders = foldersAt(`/default/${name}`, readFileSync('/proc/self/mountinfo', 'utf8')).filter(
    (folder) => !folder.includes('cpuset'),
  );
  for (const folder of folders) mkdirSync(folder, { recursive: true });
  const pid = await stranger(t, name);
  const { exitCode, stderr } = await attempt('ctr', [
    ...['run', '-d', '--runtime', runtime, '--snapshotter', 'stasis', image, name, 'sleep', '60'],
  ]);
  assert.notEqual(exitCode, 0);
  assert.match(
    stderr,
    new RegExp(`cgroup /default/${name} of container ${name} is in use by process ${pid} `),
  );
  assert.equal((await ctr('tasks', 'ls', '-q')).split('\n').includes(name), false);
  process.kill(pid, 'SIGKILL');
  await until('its end', () => (existsSync(`/proc/${pid}`) ? undefined : true));
  for (const folder of folders) rmdirSync(folder);
});

test('whoever joins it later lives on, whatever becomes of the container', async (t) => {
  const name = uniqueName('shared');
  t.after(() => removeContainer(name));
  await startWriter(name);
  await progress(name, 5);
  await stasis('checkpoint', name, '--name', 'alone', '--require-memory');
  const pid = await stranger(t, name);

  const memory = await attempt('stasis', ['checkpoint', name, '--name', 'two', '--require-memory']);
  assert.equal(memory.exitCode, 5, memory.stderr);
  assert.match(memory.stderr, /not of this container but in its cgroup/);
  const before = await pidOf(name);
  const rewind = await attempt('stasis', ['restore', name, '--snapshot', 'alone']);
  assert.equal(rewind.exitCode, 5, rewind.stderr);
  assert.match(rewind.stderr, new RegExp(`process ${pid} is in the cgroup of container ${name}`));
  assert.equal(await pidOf(name), before, 'it was not stopped');
  await progress(name, 5);

  await must('ctr', ['tasks', 'kill', '--all', '--signal', 'SIGKILL', name]);
  await until('its end', () => (existsSync(`/proc/${before}`) ? undefined : true));
  assert.ok(existsSync(`/proc/${pid}`), 'the stranger was killed with it');
});

test('a checkpoint that ends a container ends nobody else', async (t) => {
  const name = uniqueName('shared');
  t.after(() => removeContainer(name));
  await startWriter(name);
  await progress(name, 5);
  const pid = await stranger(t, name);
  const init = await pidOf(name);
  await stasis('checkpoint', name, '--exit', '--name', 'last');
  await until('its end', () => (existsSync(`/proc/${init}`) ? undefined : true));
  assert.ok(existsSync(`/proc/${pid}`), 'the stranger was killed with it');
});
