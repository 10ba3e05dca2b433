import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { asPrintfFormat } from '../../../shim/lifecycle/answer.ts';
import { DeleteResponse } from '../../../src/proto/gen/containerd/task.ts';
import { startTimeOf } from '../../../src/sys/process.ts';

/** A copy of the launcher, whose Node is a script that prints its arguments to standard error. */
function setUp(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'launcher-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const node = join(folder, 'node');
  writeFileSync(node, '#!/bin/sh\necho "node $*" >&2\nprintf unix:///from-node\n');
  const launcher = join(folder, 'any-name');
  const source = join(import.meta.dirname, '../../../shim/launcher.sh');
  writeFileSync(launcher, readFileSync(source, 'utf8').replace('@NODE@', node).replace('@SHIM@', 'MAIN'));
  for (const path of [node, launcher]) chmodSync(path, 0o755);
  const config = join(folder, 'config.toml');
  writeFileSync(config, `# comment\n[daemon]\nrun_dir = "${folder}/run" # here\n`);
  mkdirSync(join(folder, 'bundle'));
  const environment: Record<string, string> = {};
  const run = (...args: string[]) => {
    const env = { PATH: '/nowhere', STASIS_CONFIG: config, ...environment };
    const result = spawnSync(launcher, args, { cwd: join(folder, 'bundle'), env });
    return { status: result.status, stdout: result.stdout, stderr: result.stderr.toString() };
  };
  return { folder, run, config, environment };
}

const common = ['-namespace', 'ns', '-address', '/c.sock', '-publish-binary', '/bin/x', '-id', 'web'];

async function announce(folder: string, started: string): Promise<void> {
  const resident = join(folder, 'run/resident/c.sock/ns');
  mkdirSync(resident, { recursive: true });
  writeFileSync(join(resident, 'shim'), `${process.pid} ${started} /sock\n`);
}

test('start answers with the address of a living shim, and starts no program', async (t) => {
  const { folder, run } = setUp(t);
  await announce(folder, startTimeOf(process.pid));
  const { stdout, stderr, status } = run(...common, 'start');
  assert.deepEqual([stdout.toString(), stderr, status], ['unix:///sock', '', 0]);
  assert.equal(readFileSync(join(folder, 'bundle/address'), 'utf8'), 'unix:///sock');
});

test('start tells the shim that a container is about to come', async (t) => {
  const { folder, run } = setUp(t);
  await announce(folder, startTimeOf(process.pid));
  const told = once(process, 'SIGURG');
  run(...common, 'start');
  await told;
  run('-id', 'web', ...common.slice(0, 4), 'delete'); // which is nothing of the kind
  process.once('SIGURG', () => assert.fail('told of a delete'));
  await sleep(20);
  process.removeAllListeners('SIGURG');
});

test('start leaves it to Node when the pid belongs to another process by now', async (t) => {
  const { folder, run } = setUp(t);
  await announce(folder, '1');
  const { stdout, stderr } = run(...common, 'start');
  assert.equal(stdout.toString(), 'unix:///from-node');
  assert.equal(stderr, `node MAIN ${common.join(' ')} start\n`);
});

test('start leaves it to Node when the shim was killed and not reaped yet', async (t) => {
  const { folder, run } = setUp(t);
  // The child ends when a program has taken the shell's place, which never asks for it.
  const child = '(until grep -q sleep /proc/$$/comm; do sleep 0.01; done)';
  const parent = spawn('/bin/sh', ['-c', `${child} & echo $!; exec sleep 60`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.after(() => parent.kill('SIGKILL'));
  const [chunk] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(chunk.toString());
  while (!/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) await sleep(5);
  const resident = join(folder, 'run/resident/c.sock/ns');
  mkdirSync(resident, { recursive: true });
  writeFileSync(join(resident, 'shim'), `${pid} ${startTimeOf(pid)} /sock\n`);
  assert.match(run(...common, 'start').stderr, /^node MAIN/);
});

test('start leaves it to Node when shims are not shared', async (t) => {
  const { folder, run, config } = setUp(t);
  await announce(folder, startTimeOf(process.pid));
  writeFileSync(config, `[daemon]\nrun_dir = '${folder}/run'\n[shim]\nsharing = "container"\n`);
  assert.match(run(...common, 'start').stderr, /^node MAIN/);
});

test('start leaves it to Node when containerd asks for core scheduling, as no core is shared then', async (t) => {
  const { folder, run, environment } = setUp(t);
  await announce(folder, startTimeOf(process.pid));
  environment['SCHED_CORE'] = '1';
  assert.match(run(...common, 'start').stderr, /^node MAIN/);
});

test('of many first starts one runs Node, and all get the address of its shim', async (t) => {
  const { folder } = setUp(t);
  const resident = join(folder, 'run/resident/c.sock/ns');
  // Takes its time, as Node does, and announces a shim; the test's own process stands for it.
  const lines = [
    '#!/bin/sh',
    `echo run >>${folder}/runs`,
    'sleep 0.3',
    `echo '${process.pid} ${startTimeOf(process.pid)} /sock' >${resident}/shim`,
    'printf unix:///sock',
  ];
  writeFileSync(join(folder, 'node'), `${lines.join('\n')}\n`);
  const starts = Array.from({ length: 20 }, async (_, i) => {
    const cwd = join(folder, `bundle-${i}`);
    mkdirSync(cwd);
    const env = { PATH: process.env['PATH'], STASIS_CONFIG: join(folder, 'config.toml') };
    const child = spawn(join(folder, 'any-name'), [...common, 'start'], { cwd, env });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    }
    await once(child, 'close');
    return output;
  });
  assert.deepEqual(new Set(await Promise.all(starts)), new Set(['unix:///sock']));
  assert.equal(readFileSync(join(folder, 'runs'), 'utf8'), 'run\n');
});

test('a first start that fails lets the next one try', async (t) => {
  const { folder, run } = setUp(t);
  writeFileSync(join(folder, 'node'), '#!/bin/sh\nexit 1\n');
  assert.equal(run(...common, 'start').status, 1);
  writeFileSync(join(folder, 'node'), '#!/bin/sh\nprintf unix:///sock\n');
  assert.equal(run(...common, 'start').stdout.toString(), 'unix:///sock');
});

test('Node is told the limit of open files that it is about to raise', (t) => {
  const { folder, run } = setUp(t);
  writeFileSync(join(folder, 'node'), '#!/bin/sh\nprintf %s "$STASIS_OPEN_FILES"\n');
  const limited = spawnSync(
    '/bin/sh',
    ['-c', `ulimit -Sn 321; exec "$0" ${common.join(' ')} start`, join(folder, 'any-name')],
    {
      cwd: join(folder, 'bundle'),
      env: { STASIS_CONFIG: join(folder, 'config.toml') },
    },
  );
  assert.equal(limited.stdout.toString(), '321');
  assert.notEqual(run(...common, 'start').stdout.toString(), '321');
});

test('start fails when Node does', (t) => {
  const { folder, run } = setUp(t);
  writeFileSync(join(folder, 'node'), '#!/bin/sh\necho broken >&2\nexit 1\n');
  const { status, stdout, stderr } = run(...common, 'start');
  assert.deepEqual([status, stdout.toString(), stderr], [1, '', 'broken\n']);
});

test('delete prints the bytes that the shim left, and starts no program', (t) => {
  const { folder, run } = setUp(t);
  const bytes = Buffer.from([8, 210, 9, 16, 137, 1, 26, 10, 37, 92, 0, 255]);
  mkdirSync(join(folder, 'run/tasks/ns/web'), { recursive: true });
  writeFileSync(join(folder, 'run/tasks/ns/web/deleted'), `${asPrintfFormat(bytes)}\n`);
  const { stdout, stderr, status } = run(...common, '-bundle', join(folder, 'gone'), 'delete');
  assert.deepEqual([stdout, stderr, status], [bytes, '', 0]);
});

test('delete is for Node when nothing was left', (t) => {
  assert.match(setUp(t).run(...common, 'delete').stderr, /^node MAIN .* delete\n$/);
});

test('of many deletes after a shim has died one runs Node, which answers all, and leaves nothing', async (t) => {
  const { folder } = setUp(t);
  const ids = Array.from({ length: 10 }, (_, i) => `web${i}`);
  mkdirSync(join(folder, 'run/locks'), { recursive: true });
  for (const id of ids) {
    mkdirSync(join(folder, 'run/tasks/ns', id), { recursive: true });
    writeFileSync(join(folder, 'run/tasks/ns', id, 'state.json'), '{}');
  }
  // Takes its time, as Node does: who comes later than that finds the answer there, and leaves it to be swept.
  const lines = [
    '#!/bin/sh',
    `echo run >>${folder}/runs`,
    `while ! [ -e ${folder}/all ]; do sleep 0.02; done`,
    `for task in ${folder}/run/tasks/ns/*; do echo '\\101' >$task/deleted; done`,
  ];
  writeFileSync(join(folder, 'node'), `${lines.join('\n')}\n`);
  const env = { PATH: process.env['PATH'], STASIS_CONFIG: join(folder, 'config.toml') };
  const children = ids.map((id) => {
    const args = [...common.slice(0, 6), '-id', id, 'delete'];
    return spawn(join(folder, 'any-name'), args, { cwd: join(folder, 'bundle'), env });
  });
  const answers = children.map(async (child) => {
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    }
    const [status] = (await once(child, 'close')) as [number];
    return `${status} ${output}`;
  });
  for (const { pid } of children) while (!hasOpen(pid, '/locks/clear-ns')) await sleep(5);
  writeFileSync(join(folder, 'all'), '');
  assert.deepEqual(
    await Promise.all(answers),
    ids.map(() => '0 A'),
  );
  assert.equal(readFileSync(join(folder, 'runs'), 'utf8'), 'run\n');
  assert.deepEqual(readdirSync(join(folder, 'run/tasks/ns')), []);
});

test('other flags, actions and hostile names are for Node', (t) => {
  const { folder, run } = setUp(t);
  for (const args of [
    ['-v'],
    ['-info'],
    ['--unknown', 'start'],
    [...common.slice(0, 6), '-id', '../x', 'start'],
  ]) {
    assert.equal(run(...args).stderr, `node MAIN ${args.join(' ')}\n`);
  }
  assert.ok(!existsSync(join(folder, 'bundle/address')));
});

/** Whether a process that runs has a file open whose path ends so. */
function hasOpen(pid: number | undefined, end: string): boolean {
  return readdirSync(`/proc/${pid}/fd`).some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith(end);
    } catch {
      return false; // closed meanwhile
    }
  });
}

test('delete of a task that no shim has heard of is answered although Node does not start, but not while something is mounted', (t) => {
  const { folder, run, environment } = setUp(t);
  environment['PATH'] = process.env['PATH'] ?? '';
  const all = [...common, '-bundle', join(folder, 'bundle'), 'delete'];
  assert.equal(run(...all).stdout.toString(), 'unix:///from-node', 'as long as Node does');
  writeFileSync(join(folder, 'node'), '#!/bin/sh\necho broken >&2\nexit 1\n');
  const { stdout, stderr, status } = run(...all);
  assert.deepEqual([stderr, status], ['broken\n', 0]);
  const { pid, exitStatus, exitedAt } = DeleteResponse.decode(stdout);
  assert.deepEqual([pid, exitStatus], [0, 137]);
  const now = Date.now() / 1000;
  assert.ok(Math.abs(Number(exitedAt?.seconds) - now) < 60, `${exitedAt?.seconds} is not about ${now}`);

  assert.equal(run(...common, '-bundle', '/sys', 'delete').status, 1, 'there are mount points below');
  assert.equal(run(...common, '-bundle', '/a b', 'delete').status, 1, 'nobody can tell');
  mkdirSync(join(folder, 'run/tasks/ns/web'), { recursive: true });
  assert.equal(run(...all).status, 1, 'a shim has');
});
