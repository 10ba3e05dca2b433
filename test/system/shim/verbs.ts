// Each verb of the Task service, asked for by a stock client: the tests that every way to come by our shim has to pass.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { attempt, ctr, image, until } from '../support/stack.ts';

const LOOP = 'while true; do sleep 0.1; done';

function container(t: TestContext): string {
  const name = uniqueName('shim');
  t.after(() => removeContainer(name));
  return name;
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'shim-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/**
 * @param way flags of `ctr run` that choose the runtime
 * @param restorable the same for what is checkpointed: before 2.x containerd needs options to find the image path, and ctr
 *   sends them for a foreign runtime only with a file
 */
export function verbs(way: readonly string[], restorable = way): void {
  const run = (name: string, script: string, ...flags: string[]) =>
    attempt('ctr', ['run', '--rm', ...way, ...flags, image, name, '/bin/sh', '-c', script], 30_000);

  const detached = (name: string, script: string, ...flags: string[]) =>
    ctr('run', '-d', '--null-io', ...way, ...flags, image, name, '/bin/sh', '-c', script);

  const exec = (name: string, id: string, script: string) =>
    attempt('ctr', ['tasks', 'exec', '--exec-id', id, name, '/bin/sh', '-c', script], 30_000);

  test('run --rm passes output and exit code on', async (t) => {
    const result = await run(container(t), 'echo out; echo err >&2; exit 7');
    assert.deepEqual([result.stdout, result.exitCode], ['out\n', 7]);
    assert.match(result.stderr, /^err$/m);
  });

  test('a program that does not exist fails Create with the runtime’s words, and leaves nothing', async (t) => {
    const name = container(t);
    const result = await attempt('ctr', ['run', '--rm', ...way, image, name, '/no/such'], 30_000);
    assert.equal(result.exitCode, 1);
    assert.match(result.stderr, /OCI runtime create failed: .*\/no\/such/);
    assert.equal(await statusOf(name), undefined);
  });

  test('run -t gives a terminal', async (t) => {
    const args = ['run', '-t', '--rm', ...way, image, container(t), '/bin/sh', '-c', 'tty; exit 3'];
    const result = await attempt('script', [
      '-qec',
      ['ctr', ...args.map((arg) => `'${arg}'`)].join(' '),
      '/dev/null',
    ]);
    assert.match(result.stdout, /\/dev\/pts\/0/);
    assert.equal(result.exitCode, 3);
  });

  test('exec joins the container, with its own exit code, again and again under one id', async (t) => {
    const name = container(t);
    await detached(name, LOOP);
    const first = await exec(name, 'e', 'echo from exec; exit 5');
    assert.deepEqual([first.stdout, first.exitCode], ['from exec\n', 5]);
    for (let i = 0; i < 10; i++) assert.equal((await exec(name, 'e', 'true')).exitCode, 0);
    const many = await Promise.all(Array.from({ length: 10 }, (_, i) => exec(name, `e${i}`, `exit ${i}`)));
    assert.deepEqual(
      many.map((result) => result.exitCode),
      Array.from({ length: 10 }, (_, i) => i),
    );
  });

  test('pause stops the container and refuses an exec, resume lets it run', async (t) => {
    const name = container(t);
    await detached(name, LOOP);
    await ctr('tasks', 'pause', name);
    assert.equal(await statusOf(name), 'PAUSED');
    assert.match((await exec(name, 'e', 'true')).stderr, /cannot exec in a paused state/);
    assert.match((await attempt('ctr', ['tasks', 'pause', name])).stderr, /cannot pause a paused container/);
    await ctr('tasks', 'resume', name);
    assert.equal(await statusOf(name), 'RUNNING');
    assert.equal((await exec(name, 'e', 'true')).exitCode, 0);
  });

  test('kill ends a task, also a paused one; kill again is "not found"', async (t) => {
    for (const paused of [false, true]) {
      const name = container(t);
      await detached(name, LOOP);
      if (paused) await ctr('tasks', 'pause', name);
      await ctr('tasks', 'kill', '-s', 'SIGKILL', name);
      await until('the end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined), 5000);
      const again = await attempt('ctr', ['tasks', 'kill', name]);
      assert.match(again.stderr, /process already finished: not found/);
      const removed = await attempt('ctr', ['tasks', 'rm', name]);
      assert.match(removed.stderr, /exit code 137/);
    }
  });

  test('kill --all reaches every process', async (t) => {
    const name = container(t);
    await detached(name, `trap "" TERM; (trap "" TERM; sleep 600) & ${LOOP}`);
    await ctr('tasks', 'kill', '-a', '-s', 'SIGKILL', name);
    await until('the end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined), 5000);
  });

  test('metrics and processes are those of the container, also when it has ended', async (t) => {
    const name = container(t);
    await detached(name, LOOP);
    // runc's start returns a moment before its own init, which has five threads and more, has become the program.
    const pid = await pidOf(name);
    await until('its program to run', () =>
      readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('runc') ? undefined : true,
    );
    assert.match(await ctr('tasks', 'metrics', name), /pids\.current +[12]/);
    assert.match(await ctr('tasks', 'ps', name), /^\d+ +-/m);
    await ctr('tasks', 'kill', '-s', 'SIGKILL', name);
    await until('the end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined), 5000);
    assert.match(await ctr('tasks', 'metrics', name), /pids\.current +0/);
  });

  test('output goes to a log file', async (t) => {
    const name = container(t);
    const log = join(folder(t), 'deep/log');
    const flags = [...way, '--log-uri', `file://${log}`];
    await ctr('run', '-d', ...flags, image, name, '/bin/sh', '-c', 'echo out; echo err >&2');
    await until('the end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined), 5000);
    await attempt('ctr', ['tasks', 'rm', name]);
    assert.deepEqual(readFileSync(log, 'utf8').trim().split('\n').sort(), ['err', 'out']);
  });

  test('output goes to a logging program, and deleting the task waits for it', async (t) => {
    const name = container(t);
    const place = folder(t);
    const program = join(place, 'logger');
    const script = `#!/bin/sh\nexec 5>&-\ncat <&3 >${place}/out &\ncat <&4 >${place}/err &\nwait\nenv >${place}/env\n`;
    writeFileSync(program, script, { mode: 0o755 });
    const flags = [...way, '--log-uri', `binary://${program}?key=value`];
    await ctr('run', '-d', ...flags, image, name, '/bin/sh', '-c', 'echo out; echo err >&2');
    await until('the end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined), 5000);
    await attempt('ctr', ['tasks', 'rm', name]);
    assert.equal(readFileSync(join(place, 'out'), 'utf8'), 'out\n');
    assert.equal(readFileSync(join(place, 'err'), 'utf8'), 'err\n');
    assert.match(readFileSync(join(place, 'env'), 'utf8'), new RegExp(`^CONTAINER_ID=${name}$`, 'm'));
  });

  test('a client that attaches late gets what is still to come', async (t) => {
    const name = container(t);
    await ctr('run', '-d', ...way, image, name, '/bin/sh', '-c', 'sleep 1; echo late; sleep 0.2; exit 4');
    const attached = await attempt('ctr', ['tasks', 'attach', name], 20_000);
    assert.deepEqual([attached.stdout, attached.exitCode], ['late\n', 4]);
  });

  test('a checkpoint leaves the task running, and its images restore under another name', async (t) => {
    const [name, restored] = [container(t), container(t)];
    const images = join(folder(t), 'images');
    await ctr('run', '-d', '--null-io', ...restorable, image, name, '/bin/sh', '-c', LOOP);
    await ctr('containers', 'checkpoint', '--rw', '--image', '--task', name, `${name}:checkpoint`);
    t.after(() => attempt('ctr', ['images', 'rm', `${name}:checkpoint`]));
    assert.equal(await statusOf(name), 'RUNNING');
    await ctr('containers', 'restore', '--rw', '--live', restored, `${name}:checkpoint`);
    assert.equal(await statusOf(restored), 'RUNNING');
    assert.equal((await exec(restored, 'e', 'true')).exitCode, 0);
    assert.match(await ctr('tasks', 'metrics', restored), /pids\.current/);
    assert.throws(() => readdirSync(images), 'nothing was written there');
  });
}
