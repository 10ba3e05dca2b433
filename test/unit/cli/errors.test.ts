import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { commandNames } from '../../../src/cli/program.ts';
import { AlreadyExists, Cancelled, Code, NotFound, StasisError } from '../../../src/errors.ts';
import { ListResponse, RestoreResult } from '../../../src/proto/gen/stasis/stasis.ts';
import { aCheckpoint, against, FakeDaemon, type Handlers, stasis } from './harness.ts';

const failing = (error: Error): Partial<Handlers> => ({
  list: async () => {
    throw error;
  },
});

test('every status code has its documented exit code, and one line that names cause and next step', async () => {
  const documented = await readFile(join(import.meta.dirname, '../../../docs/exit-codes.md'), 'utf8');
  const expected: Record<keyof typeof Code, number> = {
    OK: 0,
    Cancelled: 9,
    Unknown: 1,
    InvalidArgument: 2,
    DeadlineExceeded: 11,
    NotFound: 3,
    AlreadyExists: 4,
    PermissionDenied: 10,
    ResourceExhausted: 6,
    FailedPrecondition: 5,
    Aborted: 12,
    Unimplemented: 8,
    Internal: 1,
    Unavailable: 7,
  };
  for (const [name, exit] of Object.entries(expected)) {
    assert.match(
      documented,
      new RegExp(`^\\| ${exit} +\\|`, 'm'),
      `${name}: exit code ${exit} is not documented`,
    );
    const code = Code[name as keyof typeof Code];
    if (code === Code.OK) continue;
    const error = new StasisError(code, 'no checkpoint nine of web', {
      subject: 'nine',
      cause: new Error('it was\nremoved'),
      remedy: 'list them',
    });
    const outcome = await against(failing(error), ['ls']);
    assert.deepEqual(outcome, {
      code: exit,
      stdout: '',
      stderr: 'stasis: no checkpoint nine of web (it was; removed)\n  next: list them\n',
    });
    const bare = await against(failing(new StasisError(code, 'no')), ['ls']);
    assert.match(bare.stderr, /^stasis: no\n {2}next: .+\n$/, `${name} has no next step of its own`);
  }
});

test('--json prints the error on stdout, beside what was done before it', async () => {
  const error = new NotFound('no container web', {
    subject: 'web',
    reason: 'no-container',
    remedy: 'see `stasis ls`',
  });
  const outcome = await against(failing(error), ['ls', '--json']);
  assert.equal(outcome.code, 3);
  assert.deepEqual(JSON.parse(outcome.stdout), {
    warnings: [],
    error: {
      code: 'NOT_FOUND',
      exitCode: 3,
      message: 'no container web',
      reason: 'no-container',
      subject: 'web',
      remedy: 'see `stasis ls`',
    },
  });
  const half: Partial<Handlers> = {
    async *clone() {
      yield { update: { $case: 'checkpoint', value: aCheckpoint() }, warnings: ['careful'] };
      yield {
        update: { $case: 'clone', value: RestoreResult.fromPartial({ container: 'web-1' }) },
        warnings: [],
      };
      throw new AlreadyExists('web-2 exists');
    },
  };
  const clones = await against(half, ['clone', 'web', '--count', '2', '--json']);
  assert.equal(clones.code, 4);
  const document = JSON.parse(clones.stdout) as { warnings: string[]; error: unknown };
  assert.partialDeepStrictEqual(document, { error: { exitCode: 4 } });
  assert.equal(document.warnings[0], 'careful');
  assert.match(document.warnings[1] ?? '', /the clones that ran already are removed again/);
  assert.deepEqual(Object.keys(document).sort(), ['error', 'warnings']);
});

test('hostile text in an error cannot reach the terminal', async () => {
  const error = new NotFound('no \u001b]0;x\u0007 "ü" %0a\r\nweb', { remedy: '\u202eevil' });
  const { stderr } = await against(failing(error), ['ls']);
  assert.equal(stderr, 'stasis: no \\u{1b}]0;x\\u{7} "ü" %0a; web\n  next: \\u{202e}evil\n');
});

test('an answer without a result is a failure', async () => {
  const { code, stderr } = await against({ async *checkpoint() {} }, ['checkpoint', 'web']);
  assert.equal(code, 1);
  assert.match(stderr, /ended the call without a result/);
});

test('a stasisd that cannot be reached is said with its socket and the reason', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-cli-'));
  try {
    const file = join(folder, 'file');
    await writeFile(file, '');
    const cases: [string, RegExp][] = [
      [join(folder, 'none'), /no such socket/],
      [file, /nobody listens|not a socket/],
      [`/${'x'.repeat(120)}`, /107 bytes|no such socket/],
    ];
    for (const [path, reason] of cases) {
      const { code, stderr } = await stasis(['ls', '--socket', path]);
      assert.equal(code, 7, path);
      assert.ok(stderr.startsWith(`stasis: cannot reach stasisd at ${path} (`), stderr);
      assert.match(stderr, reason);
      assert.match(stderr, /\n {2}next: start stasisd/);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('the socket comes from the configuration where nothing names it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-cli-'));
  try {
    const config = join(folder, 'config.toml');
    await writeFile(config, `[daemon]\nrun_dir = "${folder}/run"\n`);
    const missing = await stasis(['ls'], { env: { STASIS_CONFIG: config } });
    assert.ok(missing.stderr.includes(`cannot reach stasisd at ${folder}/run/stasisd.sock`), missing.stderr);
    await writeFile(config, '[daemon]\nrun_dri = "/x"\n');
    const wrong = await stasis(['ls'], { env: { STASIS_CONFIG: config } });
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /config\.toml:2: unknown key daemon\.run_dri/);
    const none = await stasis(['ls'], { env: { STASIS_CONFIG: join(folder, 'none.toml') } });
    assert.equal(none.code, 2);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a stasisd that dies during the call is lost, not waited for', async () => {
  const handlers: Partial<Handlers> = {
    async *checkpoint() {
      yield { update: undefined, warnings: [] };
      await daemon[Symbol.asyncDispose]();
    },
  };
  const daemon = await FakeDaemon.start(handlers);
  const { code, stderr } = await stasis(['checkpoint', 'web', '--socket', daemon.socket]);
  assert.equal(code, 7);
  assert.match(stderr, /^stasis: lost stasisd at .* during the call/);
});

test('where the call can be asked to stop, its own answer is waited for: undone, or done all the same', async () => {
  for (const done of [false, true]) {
    const asked = Promise.withResolvers<string>();
    const controller = new AbortController();
    const outcome = await against(
      {
        async *restore(_, { metadata, signal }) {
          yield { update: undefined, warnings: ['go'] };
          controller.abort();
          const name = await asked.promise;
          await sleep(50); // what undoing takes
          assert.equal(metadata.get('stasis-operation'), name);
          assert.equal(signal.aborted, false, 'it was not broken off');
          if (!done) throw new Cancelled('as asked');
          const value = RestoreResult.fromPartial({ container: 'web', checkpoint: 'one', pid: 7 });
          yield { update: { $case: 'result', value }, warnings: [] };
        },
        async cancel({ operation }) {
          asked.resolve(operation);
          if (done) throw new NotFound('it ended in this moment');
          return {};
        },
        list: async () => ListResponse.fromPartial({ containers: [{ name: 'web', status: 'running' }] }),
      },
      ['restore', 'web'],
      { signal: controller.signal },
    );
    assert.equal(outcome.code, done ? 0 : 9, outcome.stderr);
    if (done) assert.match(outcome.stdout, /^web from one: .*pid 7/);
    assert.match(outcome.stderr, done ? /warning: it was done before/ : /cancelled \(web is running/);
  }
});

test('a cancelled call is cancelled on the server, and the user hears how the container stands', async () => {
  const controller = new AbortController();
  let aborted = false;
  const handlers: Partial<Handlers> = {
    async *checkpoint(_, { signal }) {
      yield {
        update: { $case: 'progress', value: { phase: 'dumping', doneBytes: 1n, totalBytes: 2n } },
        warnings: [],
      };
      setImmediate(() => controller.abort());
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      aborted = true;
    },
    list: async () => ({
      containers: [
        {
          namespace: 'default',
          name: 'web',
          exists: true,
          status: 'running',
          pid: 1,
          disks: [],
          checkpoints: [aCheckpoint()],
          image: '',
          snapshotter: '',
          filling: undefined,
          shimSilent: '',
        },
      ],
    }),
  };
  const outcome = await against(handlers, ['checkpoint', 'web'], { signal: controller.signal });
  assert.deepEqual(outcome, {
    code: 9,
    stdout: '',
    stderr:
      'stasis: checkpoint web: cancelled (web is running and has 1 checkpoint)\n  next: look at it with `stasis ls web`\n',
  });
  assert.ok(aborted, 'the server did not hear of it');
});

test('progress shows after a second, on a terminal only', async () => {
  const slow: Partial<Handlers> = {
    async *checkpoint() {
      const value = { phase: 'storing memory', doneBytes: 1n << 20n, totalBytes: 4n << 20n };
      yield { update: { $case: 'progress', value }, warnings: [] };
      await new Promise((resolve) => setTimeout(resolve, 1500));
      yield { update: { $case: 'checkpoint', value: aCheckpoint() }, warnings: [] };
    },
  };
  const [terminal, pipe, asked, quiet] = await Promise.all([
    against(slow, ['checkpoint', 'web'], { terminal: true }),
    against(slow, ['checkpoint', 'web']),
    against(slow, ['checkpoint', 'web', '--progress']),
    against(slow, ['checkpoint', 'web', '--progress', '-q'], { terminal: true }),
  ]);
  const [before, line = ''] = terminal.stderr.split('\r\u001b[K');
  assert.equal(before, '');
  assert.match(line, /^checkpoint web: storing memory 1\.0 MiB of 4\.0 MiB \(25 %\) {2}1\.\d s$/);
  assert.ok(terminal.stderr.endsWith('\r\u001b[K'), 'the line was not taken away');
  assert.equal(pipe.stderr, '');
  assert.equal(asked.stderr, 'checkpoint web: storing memory 1.0 MiB of 4.0 MiB (25 %)\n');
  assert.equal(quiet.stderr, '');
});

test('slips in the command line end with exit code 2 and the way to the help', async () => {
  const cases: [string[], RegExp][] = [
    [['lss'], /^stasis: unknown command 'lss' \(Did you mean ls\?\)\n {2}next: see `stasis --help`/],
    [['help', 'nosuch'], /^stasis: unknown command 'nosuch'\n {2}next: see `stasis --help`/],
    [['config', 'frob'], /^stasis: unknown command 'frob'\n {2}next: see `stasis config --help`/],
    [['config'], /^stasis: no command given\n {2}next: see `stasis config --help`/],
    [['ls', '--al'], /^stasis: unknown option '--al'.*\n {2}next: see `stasis ls --help`/],
    [['checkpoint'], /a checkpoint is of named containers, of a pod or of a label/],
    [['checkpoint', 'a', '--pod', 'b'], /a checkpoint is of named containers, of a pod or of a label/],
    [['restore', 'a', 'b', '--as', 'c'], /--as takes one container/],
    [['restore', '--set', 'a', '--snapshot', 'b'], /cannot be used with/],
    [['inspect', 'a', 'b', 'c'], /too many arguments/],
    [['checkpoint', 'a', '--disk-only', '--require-memory'], /cannot be used with/],
    [['rm', 'web'], /missing required argument 'checkpoints'/],
    [['ls', '-n', 'a/b'], /"a\/b" is not a namespace/],
    [['ls', '--socket', 'a\nb'], /is not the path of a socket/],
  ];
  for (const [argv, text] of cases) {
    const { code, stdout, stderr } = await stasis(argv);
    assert.equal(code, 2, argv.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, text);
  }
  const none = await stasis([]);
  assert.equal(none.code, 2);
  for (const name of commandNames) assert.match(none.stderr, new RegExp(`^ {2}${name} `, 'm'));
});

test('every command has help with examples and the global options', async () => {
  for (const name of commandNames) {
    for (const argv of [
      [name, '--help'],
      ['help', name],
    ]) {
      const { code, stdout, stderr } = await stasis(argv);
      assert.equal(code, 0, `${argv.join(' ')}: ${stderr}`);
      assert.match(stdout, new RegExp(`^Usage: stasis ${name} `));
      assert.match(stdout, new RegExp(`^Examples:\n {2}stasis ${name} ?|^ {2}stasis ${name} `, 'm'));
      assert.match(stdout, /--namespace <name>/);
    }
  }
  const all = await stasis(['--help']);
  assert.equal(all.code, 0);
  for (const name of commandNames) assert.match(all.stdout, new RegExp(`^ {2}${name} `, 'm'));
});

test('every command is documented with an example', async () => {
  const page = await readFile(join(import.meta.dirname, '../../../docs/cli.md'), 'utf8');
  for (const name of commandNames) {
    assert.match(page, new RegExp(`^## .*stasis ${name}\\b`, 'm'), `docs/cli.md has no section for ${name}`);
    assert.match(page, new RegExp(`^\\$ stasis ${name}\\b`, 'm'), `docs/cli.md has no example of ${name}`);
  }
});

test('a cancelled removal says which checkpoints are gone, and which are not', async () => {
  const removals = [
    { gone: ['one', 'two'], code: 0, said: /warning: it was done before it could be cancelled/ },
    { gone: ['one'], code: 9, said: /cancelled: two of web not removed/ },
    { gone: undefined, code: 9, said: /as asked/ },
  ];
  for (const { gone, code, said } of removals) {
    const asked = Promise.withResolvers<string>();
    const controller = new AbortController();
    const outcome = await against(
      {
        async remove(_, { metadata, signal }) {
          controller.abort();
          assert.equal(metadata.get('stasis-operation'), await asked.promise);
          assert.equal(signal.aborted, false, 'it was not broken off');
          if (gone === undefined) throw new Cancelled('as asked');
          return { removed: gone.map((name) => ({ name, freedBytes: 0n, waitsFor: [] })) };
        },
        async cancel({ operation }) {
          asked.resolve(operation);
          return {};
        },
      },
      ['rm', 'web', 'one', 'two'],
      { signal: controller.signal },
    );
    assert.equal(outcome.code, code, outcome.stderr);
    assert.equal(outcome.stdout, (gone ?? []).map((name) => `web@${name}: removed\n`).join(''));
    assert.match(outcome.stderr, said);
  }
});
