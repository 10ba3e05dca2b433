// The program as a process: what run() cannot show.
import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { loadProgram } from '../../../src/cli/code-cache.ts';
import { ListResponse } from '../../../src/proto/gen/stasis/stasis.ts';
import { FakeDaemon, type Outcome, stasis, stasisProcess } from './harness.ts';

/** Runs the program and lists the files that it loaded. */
async function loadedBy(
  argv: string[],
  env: NodeJS.ProcessEnv,
): Promise<{ outcome: Outcome; files: string[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-cli-'));
  try {
    const outcome = await stasisProcess(argv, { ...env, NODE_V8_COVERAGE: folder });
    const files: string[] = [];
    for (const name of await readdir(folder)) {
      const report = JSON.parse(await readFile(join(folder, name), 'utf8')) as { result: { url: string }[] };
      files.push(...report.result.map(({ url }) => url));
    }
    return { outcome, files };
  } finally {
    await rm(folder, { recursive: true });
  }
}

test('version needs no daemon, and loads neither grammar nor client', async () => {
  const { outcome, files } = await loadedBy(['version'], { STASIS_ADDRESS: '/nowhere' });
  assert.equal(outcome.code, 0);
  assert.match(outcome.stdout, /^stasis \S+ \(commit \S+, node 24\.\S+\)\n$/);
  assert.ok(
    files.some((file) => file.endsWith('src/cli/main.ts')),
    'nothing was recorded',
  );
  assert.deepEqual(
    files.filter((file) => /commander|client|program|proto/.test(file)),
    [],
  );
  assert.equal((await stasisProcess(['--version'])).stdout, outcome.stdout);
  assert.equal((await stasis(['--version'])).stdout, outcome.stdout);
});

test('a call loads neither grpc-js nor the commands that are not asked for', async () => {
  await using daemon = await FakeDaemon.start({ list: async () => ListResponse.fromPartial({}) });
  const { outcome, files } = await loadedBy(['ls'], { STASIS_ADDRESS: daemon.socket });
  assert.equal(outcome.code, 0, outcome.stderr);
  assert.ok(
    files.some((file) => file.endsWith('src/cli/client.ts')),
    'nothing was recorded',
  );
  assert.deepEqual(
    files.filter((file) => /@grpc|smol-toml|commands\/spec/.test(file)),
    [],
  );
});

test('Ctrl-C cancels the call, says the state and exits with 9', async () => {
  await using daemon = await FakeDaemon.start({
    async *checkpoint(_, { signal }) {
      yield {
        update: { $case: 'progress', value: { phase: 'dumping', doneBytes: 0n, totalBytes: 0n } },
        warnings: ['go'],
      };
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    },
    list: async () => ListResponse.fromPartial({ containers: [{ name: 'web', status: 'paused' }] }),
  });
  const outcome = await stasisProcess(['checkpoint', 'web'], { STASIS_ADDRESS: daemon.socket }, (child) => {
    child.stderr?.once('data', () => child.kill('SIGINT'));
  });
  assert.equal(outcome.signal, null);
  assert.equal(outcome.code, 9);
  assert.match(outcome.stderr, /cancelled \(web is paused and has 0 checkpoints\)\n {2}next: /);
});

test('a reader that goes away is no error', async () => {
  const containers = Array.from({ length: 5000 }, (_, index) => ({
    name: `c${index}`,
    image: 'x'.repeat(200),
  }));
  await using daemon = await FakeDaemon.start({ list: async () => ListResponse.fromPartial({ containers }) });
  const outcome = await stasisProcess(['ls'], { STASIS_ADDRESS: daemon.socket }, (child) =>
    child.stdout?.destroy(),
  );
  assert.equal(outcome.code, 0, outcome.stderr);
  assert.equal(outcome.stderr, '');
});

test('called as an OCI runtime it refuses, on stderr and in the log that the caller reads', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-cli-'));
  try {
    const log = join(folder, 'log.json');
    const argv = [
      '--root',
      '/run/x',
      '--log',
      log,
      '--log-format',
      'json',
      'create',
      '--bundle',
      folder,
      'web',
    ];
    const outcome = await stasisProcess(argv);
    assert.equal(outcome.code, 8);
    assert.match(
      outcome.stderr,
      /^stasis: not an OCI runtime .*create.*\n {2}next: .*--runtime io\.containerd\.stasis\.v2/,
    );
    const entry = JSON.parse(await readFile(log, 'utf8')) as Record<string, unknown>;
    assert.equal(entry['level'], 'error');
    assert.match(String(entry['msg']), /io\.containerd\.stasis\.v2/);

    // A link in the log's place is not followed.
    const link = join(folder, 'link');
    await symlink(join(folder, 'target'), link);
    assert.equal((await stasis(['--log', link, 'state', 'web'])).code, 8);
    await assert.rejects(stat(join(folder, 'target')));
    for (const call of [
      ['--systemd-cgroup', 'create', 'x'],
      ['--root=/x', 'kill', 'x'],
      ['features'],
      ['state', 'x'],
    ]) {
      assert.equal((await stasis(call)).code, 8, call.join(' '));
    }
    // A container may be called as a runtime's command is.
    assert.equal((await stasis(['ls', 'create', '--socket', '/nowhere'])).code, 7);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('compiled code is kept and taken only where others cannot write, and never that of another program', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-cli-'));
  try {
    const file = join(folder, 'program.cjs');
    const cache = join(folder, 'cache');
    await writeFile(file, 'module.exports.answer = () => 41;');
    await mkdir(cache);
    const answer = (): { answer: number; cached: boolean; keep: () => void } => {
      const program = loadProgram({ file, cache, build: 'test' });
      const module = { exports: {} as { answer: () => number } };
      program.run(module.exports, createRequire(file), module, file, folder);
      return { answer: module.exports.answer(), cached: program.cached, keep: () => program.keep() };
    };
    for (const mode of [0o777, 0o775]) {
      await chmod(cache, mode);
      answer().keep();
      assert.deepEqual(await readdir(cache), []);
    }
    await chmod(cache, 0o755);
    answer().keep();
    assert.deepEqual(await readdir(cache).then((names) => names.length), 1);
    assert.equal(answer().cached, true);
    await chmod(cache, 0o777);
    assert.equal(answer().cached, false);
    await chmod(cache, 0o755);
    await writeFile(file, 'module.exports.answer = () => 42;');
    assert.deepEqual({ ...answer(), keep: 0 }, { answer: 42, cached: false, keep: 0 });
  } finally {
    await rm(folder, { recursive: true });
  }
});
