import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { detectRuntime, RuntimeBinaries } from '../../../src/oci/binary.ts';
import { openRuntime, type RuntimeOptions } from '../../../src/oci/runtime.ts';
import { makeFifo } from '../../../src/sys/fifo.ts';
import type { RuntimeName } from '../../../src/oci/types.ts';
import {
  exec as realExec,
  type CommandOptions,
  type CommandResult,
  type Exec,
} from '../../../src/sys/command.ts';

const bundle = mkdtempSync(join(tmpdir(), 'stasis-oci-'));
after(() => rmSync(bundle, { recursive: true }));

interface Call {
  file: string;
  args: readonly string[];
  options: CommandOptions;
}

const done: CommandResult = {
  exitCode: 0,
  signal: undefined,
  stdout: '',
  stderr: '',
  timedOut: false,
  cancelled: false,
  durationMs: 1,
  spawnError: undefined,
};

function door(
  name: RuntimeName,
  answer: (call: Call) => Partial<CommandResult> = () => ({}),
  folder = bundle,
  unmounted?: string,
  more: Partial<RuntimeOptions> = {},
) {
  const calls: Call[] = [];
  const exec: Exec = async (file, args, options = {}) => {
    calls.push({ file, args, options });
    return { ...done, ...answer({ file, args, options }) };
  };
  const binary = { name, path: name, version: '1', criu: true };
  const env = { PATH: '/bin', NOTIFY_SOCKET: '/run/notify' };
  const runtime = openRuntime({
    exec,
    binary,
    bundle: folder,
    root: join(bundle, 'root'),
    criuDir: '/opt/criu',
    env,
    findUnmounted: () => unmounted,
    ...more,
  });
  return { calls, runtime };
}

const stdioFds = ['ignore', 'ignore', 'ignore'] as const;

test('the log stands first among the global options, and the bundle is the working folder', async () => {
  const { calls, runtime } = door('runc');
  await runtime.create({ id: 'web', bundle, pidFile: 'p', stdioFds, noPivot: true });
  const [call] = calls;
  assert.equal(call?.args[0], '--log');
  assert.deepEqual(call?.args.slice(2), [
    '--log-format', 'json', '--root', join(bundle, 'root'),
    'create', '--bundle', bundle, '--pid-file', 'p', '--no-pivot', 'web',
  ]); // prettier-ignore
  assert.equal(call?.options.cwd, bundle);
});

test('CRIU’s folder is first on PATH, and our own service socket is not passed on', async () => {
  const { calls, runtime } = door('runc');
  await runtime.start('web');
  assert.deepEqual(calls[0]?.options.env, { PATH: '/opt/criu:/bin' });
});

test('a usual start does without the runtime; where that cannot be, the runtime is called', async () => {
  const { calls, runtime } = door('crun');
  const folder = join(bundle, 'root/started');
  mkdirSync(folder, { recursive: true });
  makeFifo(join(folder, 'exec.fifo'), 0o600);
  const reader = openSync(join(folder, 'exec.fifo'), constants.O_RDONLY | constants.O_NONBLOCK);
  const first = { pid: process.ppid, ended: new AbortController().signal };
  await runtime.start('started', { first });
  closeSync(reader);
  assert.equal(calls.length, 0);
  await runtime.start('started', { first });
  assert.deepEqual(calls.at(0)?.args.slice(-2), ['start', 'started']);
});

test('a usual delete of crun’s does without it; where that cannot be, it is called', async () => {
  const folder = join(bundle, 'root/ended');
  const { pid: ended } = spawnSync('true');
  const leave = (): void => {
    mkdirSync(folder, { recursive: true });
    const status = { pid: ended, 'cgroup-path': '/stasis-no-such-cgroup/ended', scope: '' };
    writeFileSync(join(folder, 'status'), JSON.stringify({ ...status, 'systemd-cgroup': false }));
    writeFileSync(join(folder, 'config.json'), '{}');
  };
  const deletes = async (options: { ended?: number }, more: object = {}): Promise<number> => {
    leave();
    const { calls, runtime } = door('crun', undefined, bundle, undefined, more);
    await runtime.delete('ended', options);
    if (calls.length === 0) assert.equal(existsSync(folder), false);
    else assert.deepEqual(calls[0]?.args.slice(-2), ['delete', 'ended']);
    return calls.length;
  };
  const binary = { name: 'crun', path: 'crun', version: '1.21', criu: true } as const;
  assert.equal(await deletes({ ended }, { binary }), 0);
  assert.equal(await deletes({}, { binary }), 1, 'whose end nobody vouches for');
  assert.equal(await deletes({ ended }, { binary: { ...binary, version: '1.99' } }), 1);
  assert.equal(await deletes({ ended }, { binary: { ...binary, wrapped: true } }), 1);
  assert.equal(await deletes({ ended }, { binary, systemdCgroup: true }), 1);
  assert.equal(await deletes({ ended }, { binary, isRootSlow: true }), 1);
});

test('two calls at once never read each other’s log', async () => {
  const { runtime } = door('runc', ({ args }) => {
    const log = args[1] ?? '';
    writeFileSync(log, JSON.stringify({ level: 'error', msg: `about ${args.at(-2)}` }));
    return { exitCode: 1 };
  });
  const errors = await Promise.all(
    ['a', 'b'].map((id) => runtime.kill(id, 9).catch((error: unknown) => String(error))),
  );
  assert.match(String(errors[0]), /about a$/);
  assert.match(String(errors[1]), /about b$/);
  assert.deepEqual(
    readdirSync(bundle).filter((name) => name.startsWith('oci-log')),
    [],
  );
});

test('a bundle that is gone does not keep a delete from running', async () => {
  const { calls, runtime } = door(
    'runc',
    ({ options }) => (options.cwd === '/' ? {} : { spawnError: 'ENOENT' }),
    join(bundle, 'gone'),
  );
  await runtime.delete('web', { force: true });
  assert.deepEqual(calls[1]?.args, [
    '--log-format',
    'json',
    '--root',
    join(bundle, 'root'),
    'delete',
    '--force',
    'web',
  ]);
});

test('crun is never given a flag that it lacks, and says what it cannot do', async () => {
  const { calls, runtime } = door('crun');
  const restore = {
    id: 'web',
    bundle,
    imageDir: '/i',
    workDir: bundle,
    pidFile: 'p',
    detach: true,
    noSubreaper: true,
    stdioFds,
  };
  await runtime.restore(restore);
  assert.ok(!calls[0]?.args.includes('--no-subreaper'));
  await assert.rejects(
    runtime.restore({ ...restore, lazyPages: true }),
    /crun cannot restore with lazy pages/,
  );
  const dump = { id: 'web', imageDir: '/i', workDir: '/w', leaveRunning: true };
  await assert.rejects(
    runtime.checkpoint({ ...dump, emptyNs: ['network'] }),
    /crun cannot checkpoint with an empty namespace/,
  );
  assert.equal(calls.length, 1);
});

test('a restore under crun that would end in the root cgroup is not begun, and one under runc is', async () => {
  const restore = {
    id: 'web',
    bundle,
    imageDir: '/i',
    workDir: bundle,
    pidFile: 'p',
    detach: true,
    stdioFds,
  };
  const crun = door('crun', undefined, undefined, 'hugetlb');
  await assert.rejects(crun.runtime.restore(restore), /hierarchy hugetlb is mounted nowhere/);
  assert.deepEqual(crun.calls, []);
  const runc = door('runc', undefined, undefined, 'hugetlb');
  await runc.runtime.restore(restore);
  assert.equal(runc.calls.length, 1);
});

test('a restore under crun is told where masked folders come from, other options kept', async () => {
  const criuConfig = join(bundle, 'mine.conf');
  writeFileSync(criuConfig, 'ghost-limit 2M\n');
  const { calls, runtime } = door('crun');
  await runtime.restore({
    id: 'web',
    bundle,
    imageDir: '/i',
    workDir: bundle,
    pidFile: 'p',
    detach: true,
    stdioFds,
    criuConfig,
  });
  const file = calls[0]?.options.env?.['CRIU_CONFIG_FILE'] ?? '';
  assert.match(
    readFileSync(file, 'utf8'),
    /^ghost-limit 2M\nexternal mnt\[\/run\/crun\/\.empty-directory\]:.*root\/\.empty-directory\n$/,
  );
});

test('where the CRIU that was named is not there, none that PATH holds is called in its place', async () => {
  const calls: string[] = [];
  const exec: Exec = async (file) => {
    calls.push(file);
    return done;
  };
  const binary = { name: 'runc', path: 'runc', version: '1', criu: true } as const;
  const requireCriu = (): Promise<never> => Promise.reject(new Error('no such CRIU'));
  const runtime = openRuntime({ exec, binary, bundle, root: join(bundle, 'root'), requireCriu });
  const images = { id: 'web', imageDir: '/images', workDir: '/work' };
  await assert.rejects(runtime.checkpoint({ ...images, leaveRunning: true }), /no such CRIU/);
  await assert.rejects(runtime.preDump({ ...images }), /no such CRIU/);
  await assert.rejects(
    runtime.restore({ ...images, bundle, pidFile: 'p', detach: true, stdioFds }),
    /no such CRIU/,
  );
  assert.deepEqual(calls, []);
});

test('resources reach update in a file of mode 0600 that is gone afterwards', async () => {
  const { runtime } = door('runc', ({ args }) => {
    assert.equal(readFileSync(args[args.indexOf('--resources') + 1] ?? '', 'utf8'), '{"pids":{}}');
    return {};
  });
  await runtime.update('web', '{"pids":{}}');
  assert.deepEqual(
    readdirSync(bundle).filter((name) => name.startsWith('resources')),
    [],
  );
});

test('an answer that is no JSON is an error, not a state', async () => {
  const { runtime } = door('runc', () => ({ stdout: 'hello' }));
  await assert.rejects(runtime.state('web'), /its answer is not understood: hello/);
});

test('no processes are an empty list, which runc prints as null', async () => {
  assert.deepEqual(await door('runc', () => ({ stdout: 'null\n' })).runtime.ps('web'), []);
});

const versions = {
  'runc version 1.1.5+ds1\ncommit: x\n': { name: 'runc', version: '1.1.5', criu: true },
  'crun version 1.28\ncommit: x\n+SYSTEMD +CRIU +YAJL\n': { name: 'crun', version: '1.28', criu: true },
  'crun version 1.8.1\n+SYSTEMD +YAJL\n': { name: 'crun', version: '1.8.1', criu: false },
};
for (const [stdout, expected] of Object.entries(versions)) {
  test(`${stdout.split('\n')[0]} is recognised`, async () => {
    const found = await detectRuntime(async () => ({ ...done, stdout }), '/x');
    assert.deepEqual(found, { ...expected, path: '/x' });
  });
}

test('a program around the runtime is told from the runtime, and is not passed over at a start', async () => {
  const script = join(bundle, 'wrapper');
  writeFileSync(script, '#!/bin/sh\nexec runc "$@"\n', { mode: 0o755 });
  const by = async (path: string, stdout: string) =>
    (await detectRuntime(async () => ({ ...done, stdout }), path)).wrapped;
  assert.equal(await by(script, 'runc version 1.1.5\n'), true);
  assert.equal(await by(process.execPath, 'Container Runtime version 1.17\nrunc version 1.1.5\n'), true);
  assert.equal(await by(process.execPath, 'runc version 1.1.5\n'), undefined);

  const calls: (readonly string[])[] = [];
  const exec: Exec = async (_, args) => {
    calls.push(args);
    return done;
  };
  const binary = { name: 'crun', path: script, version: '1', criu: true, wrapped: true } as const;
  const runtime = openRuntime({ exec, binary, bundle, root: join(bundle, 'root') });
  const folder = join(bundle, 'root/wrapped');
  mkdirSync(folder, { recursive: true });
  makeFifo(join(folder, 'exec.fifo'), 0o600);
  await runtime.start('wrapped', { first: { pid: process.ppid, ended: new AbortController().signal } });
  assert.deepEqual(calls.at(0)?.slice(-2), ['start', 'wrapped']);
});

test('another program in the runtime’s place is refused by name', async () => {
  await assert.rejects(
    detectRuntime(async () => ({ ...done, stdout: 'ls 9.1' }), 'ls'),
    /"ls" is neither runc nor crun/,
  );
});

test('a runtime that was missing is looked for again, one that was found is not', async () => {
  let calls = 0;
  const binaries = new RuntimeBinaries(async () => {
    calls++;
    return calls === 1
      ? { ...done, exitCode: undefined, spawnError: 'ENOENT' }
      : { ...done, stdout: 'runc version 1.1\n' };
  });
  await assert.rejects(binaries.get('runc'));
  assert.equal((await binaries.get('runc')).version, '1.1');
  await binaries.get('runc');
  assert.equal(calls, 2);
});

test('containers inherit the limit of open files that was asked for, not ours; other calls have ours', async () => {
  const runtimePath = join(bundle, 'limited');
  writeFileSync(runtimePath, `#!/bin/sh\necho "$(ulimit -Sn) $*" >>${bundle}/limits\n`, { mode: 0o755 });
  const binary = { name: 'runc', path: runtimePath, version: '1', criu: true } as const;
  const runtime = openRuntime({ exec: realExec, binary, bundle, openFiles: 123 });
  await runtime.create({ id: 'web', bundle, pidFile: 'p', stdioFds });
  await runtime.exec({ id: 'web', processFile: 'x', pidFile: 'p', stdioFds, detach: true });
  await runtime.start('web');
  const lines = readFileSync(join(bundle, 'limits'), 'utf8').trim().split('\n');
  assert.deepEqual(
    lines.map((line) => line.split(' ')[0] === '123'),
    [true, true, false],
  );
  assert.match(lines[0] ?? '', / create .* web$/);
});
