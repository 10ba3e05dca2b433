// The shim's one file in a strange place, and containers that must not notice each other.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { slowness } from '../support/slowness.ts';
import { attempt, ctr, image, importImage, must, runtime, stack, until } from '../support/stack.ts';
import { shimPid } from './shims.ts';

let folder: string;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/isolation-'));
});
after(() => rmSync(folder, { recursive: true }));

function container(t: TestContext): string {
  const name = uniqueName('isolation');
  t.after(() => removeContainer(name));
  return name;
}

test('a copy of the launcher alone, in another folder and under another name, serves by its path', async (t) => {
  const copy = join(folder, 'containerd-shim-copied-v2');
  copyFileSync(join(stack.project, 'dist/containerd-shim-stasis-v2'), copy);
  const [name, usual] = [container(t), container(t)];
  const result = await attempt('ctr', ['run', '--rm', '--runtime', copy, image, name, '/bin/echo', 'served']);
  assert.deepEqual([result.stdout, result.exitCode], ['served\n', 0], result.stderr);
  await ctr('run', '-d', '--null-io', '--runtime', copy, image, name, '/bin/sleep', '600');
  await ctr('run', '-d', '--null-io', '--runtime', runtime, image, usual, '/bin/sleep', '600');
  assert.equal(await shimPid(name), await shimPid(usual), 'and shares the shim of the namespace');
  assert.match(await must(copy, ['-v']), /Version: /);
  assert.match(await must('/bin/sh', ['-c', '"$0" -info </dev/null', copy]), /runtime-spec\/1\/features/);
});

test('floods of output, one read and one that nobody reads, hold nobody else up', async (t) => {
  const [read, unread, other] = [container(t), container(t), container(t)];
  const program = join(folder, 'logger');
  writeFileSync(program, '#!/bin/sh\nexec 5>&-\nexec cat <&3 >/dev/null\n', { mode: 0o755 });
  const flags = ['--runtime', runtime];
  const flood = (name: string, ...more: string[]) =>
    ctr('run', '-d', ...flags, ...more, image, name, '/bin/sh', '-c', 'exec yes "a line of some length"');
  await flood(read, '--log-uri', `binary://${program}`);
  await flood(unread); // into pipes whose client has gone
  await ctr('run', '-d', '--null-io', ...flags, image, other, '/bin/sleep', '600');
  for (let i = 0; i < 3; i++) {
    const before = performance.now();
    const done = await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', other, '/bin/true']);
    assert.equal(done.exitCode, 0);
    assert.match(await ctr('tasks', 'metrics', other), /pids\.current/);
    assert.ok(performance.now() - before < 5000 * slowness);
  }
  for (const name of [read, unread]) {
    const pid = await pidOf(name);
    assert.ok(pid !== undefined, `${name} runs`);
    await ctr('tasks', 'kill', '-s', 'SIGKILL', name);
    await until('its end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined));
  }
});

test('input to a terminal whose program does not read holds nobody up, and all of it arrives when it does', async (t) => {
  const [name, other] = [container(t), container(t)];
  const lines = 2000;
  const script = `until [ -e /go ]; do sleep 0.05; done; n=0; while [ $n -lt ${lines} ] && read -r line; do n=$((n+1)); done; echo got $n`;
  await ctr('run', '-d', '--null-io', '--runtime', runtime, image, other, '/bin/sleep', '600');
  const args = ['run', '-t', '--rm', '--runtime', runtime, image, name, '/bin/sh', '-c', script];
  const quoted = ['ctr', ...args].map((arg) => `'${arg}'`).join(' ');
  const client = spawn('script', ['-qec', quoted, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] });
  t.after(() => client.kill('SIGKILL'));
  let shown = '';
  client.stdout.on('data', (chunk: Buffer) => (shown += chunk.toString()));
  await until('its task', async () => ((await statusOf(name)) === 'RUNNING' ? true : undefined));
  client.stdin.write(`${'x'.repeat(79)}\n`.repeat(lines));
  for (let i = 0; i < 5; i++) {
    await sleep(200);
    assert.equal((await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', other, '/bin/true'])).exitCode, 0);
    assert.equal(await statusOf(name), 'RUNNING');
  }
  assert.doesNotMatch(shown, /got/);
  await ctr('tasks', 'exec', '--exec-id', 'go', name, '/bin/touch', '/go');
  await until('all lines to be read', () => (shown.includes(`got ${lines}`) ? true : undefined));
});
