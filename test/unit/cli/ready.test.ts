// The script `stasis` and the process that it calls: whatever becomes of either, a command runs once, and is answered as ever.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
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
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { commandNames } from '../../../src/cli/program.ts';
import { readyCommands } from '../../../src/cli/ready/commands.ts';
import { ListResponse } from '../../../src/proto/gen/stasis/stasis.ts';
import { makeFifo } from '../../../src/sys/fifo.ts';
import { isStopped, startTimeOf } from '../../../src/sys/process.ts';
import { FakeDaemon, type Handlers } from './harness.ts';

const sources = join(import.meta.dirname, '../../../src/cli/ready');
/** What may be /bin/sh. */
const shells = [
  ['dash', '/bin/dash'],
  ['bash', '/bin/bash', '--posix'],
].filter(([, path = '']) => existsSync(path));

interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

const listed: Partial<Handlers> = {
  list: async () => ListResponse.fromPartial({ containers: [{ name: 'web', status: 'running' }] }),
};
const served = 'web\n';
const byNode = 'node ls -q\n';

/** A stasisd, the script, whose Node is a script that prints its arguments, and the processes that are made ready for it. */
class Stage {
  readonly daemon: FakeDaemon;
  readonly script: string;
  readonly env: Record<string, string>;
  readonly folder: string;
  readonly ready: string;
  readonly #processes: ChildProcess[] = [];

  private constructor(daemon: FakeDaemon) {
    this.daemon = daemon;
    this.folder = mkdtempSync(join(tmpdir(), 'stasis-ready-'));
    const node = join(this.folder, 'node');
    writeFileSync(node, '#!/bin/sh\nshift\necho "node $*"\n');
    this.script = join(this.folder, 'stasis');
    const text = readFileSync(join(sources, 'stasis.sh'), 'utf8')
      .replaceAll('@NODE@', node)
      .replaceAll('@OPTIONS@', '')
      .replaceAll('@STASIS@', 'MAIN')
      .replaceAll('@BUILD@', 'source')
      .replaceAll('@COMMANDS@', readyCommands.join(' | '));
    writeFileSync(this.script, text);
    for (const path of [node, this.script]) chmodSync(path, 0o755);
    this.ready = join(daemon.socket, '../ready');
    mkdirSync(this.ready, { mode: 0o700 });
    this.env = { PATH: process.env['PATH'] ?? '', STASIS_ADDRESS: daemon.socket };
  }

  static async open(t: TestContext, handlers: Partial<Handlers> = listed): Promise<Stage> {
    const daemon = await FakeDaemon.start(handlers);
    const stage = new Stage(daemon);
    t.after(async () => {
      for (const child of stage.#processes) child.kill('SIGKILL');
      rmSync(stage.folder, { recursive: true });
      await daemon[Symbol.asyncDispose]();
    });
    return stage;
  }

  /** Starts a process and waits until it can be called. */
  async start(): Promise<ChildProcess> {
    const child = spawn(process.execPath, [join(sources, 'main.ts'), this.ready], {
      stdio: ['pipe', 'ignore', 'inherit'],
      env: {},
    });
    this.#processes.push(child);
    while (!this.slots().some((name) => name.startsWith(`source.${child.pid}.`))) {
      assert.equal(child.exitCode, null);
      await sleep(10);
    }
    return child;
  }

  slots(): string[] {
    return readdirSync(this.ready);
  }

  call(...args: string[]): Promise<Outcome> {
    return this.shell('exec "$@"', this.script, ...args);
  }

  /** Runs a line of shell with these arguments. */
  shell(line: string, ...args: string[]): Promise<Outcome> {
    return outcomeOf(this.spawn('/bin/sh', '-c', line, 'sh', ...args));
  }

  spawn(file: string, ...args: string[]): ChildProcess {
    const child = spawn(file, args, {
      env: this.env,
      cwd: this.folder,
      timeout: 20_000,
      killSignal: 'SIGKILL',
    });
    this.#processes.push(child);
    return child;
  }
}

async function outcomeOf(child: ChildProcess): Promise<Outcome> {
  const outcome: Outcome = { code: null, signal: null, stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (outcome.stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (outcome.stderr += text));
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { ...outcome, code, signal };
}

/** A checkpoint that goes on until it is cancelled; `said` when its client has heard of it. */
function endless(): { handlers: Partial<Handlers>; cancelled: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return {
    cancelled: promise,
    handlers: {
      async *checkpoint(_, { signal }) {
        yield {
          update: { $case: 'progress', value: { phase: 'dumping', doneBytes: 0n, totalBytes: 0n } },
          warnings: ['go'],
        };
        await new Promise<void>((end) => signal.addEventListener('abort', () => end(), { once: true }));
        resolve();
      },
      list: async () => ListResponse.fromPartial({ containers: [{ name: 'web', status: 'paused' }] }),
    },
  };
}

test('only commands that are there are made ready, and they are in the script', async (t) => {
  assert.deepEqual(
    readyCommands.filter((one) => !commandNames.includes(one)),
    [],
  );
  const stage = await Stage.open(t);
  await stage.start();
  assert.equal((await stage.call('ls', '-q')).stdout, served);
  for (const args of [
    ['setup'],
    ['doctor', 'web'],
    ['config', 'show'],
    ['--json', 'ls'],
    ['ls', '--help'],
    [],
  ]) {
    assert.equal((await stage.call(...args)).stdout, `node ${args.join(' ')}\n`);
  }
});

for (const [name = '', ...shell] of shells) {
  test(`with ${name}: answers, exit codes and errors are the command's own, one call after the other`, async (t) => {
    const stage = await Stage.open(t);
    await stage.start();
    for (let i = 0; i < 10; i += 1) {
      const all = [...shell, stage.script];
      assert.deepEqual(await stage.shell('exec "$@"', ...all, 'ls', '-q'), {
        code: 0,
        signal: null,
        stdout: served,
        stderr: '',
      });
      const refused = await stage.shell('exec "$@"', ...all, 'ls', 'no such name');
      assert.equal(refused.code, 2);
      assert.match(refused.stderr, /^stasis: .*\n {2}next: /);
      assert.equal((await stage.shell('exec "$@"', ...all, 'ls', 'nobody')).code, 3);
    }
    assert.equal(stage.slots().length, 1, 'nothing is left of a call');
  });

  test(`with ${name}: Ctrl-C, SIGTERM and SIGHUP cancel the call, twice ends at once`, async (t) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      const { handlers } = endless();
      const stage = await Stage.open(t, handlers);
      await stage.start();
      const child = stage.spawn(...(shell as [string]), stage.script, 'checkpoint', 'web');
      child.stderr?.once('data', () => child.kill(signal));
      const outcome = await outcomeOf(child);
      assert.deepEqual([outcome.code, outcome.signal], [9, null], outcome.stderr);
      assert.match(outcome.stderr, /cancelled \(web is paused and has 0 checkpoints\)\n {2}next: /);
    }
    const { handlers } = endless();
    const stage = await Stage.open(t, { ...handlers, cancel: () => new Promise(() => undefined) });
    const ready = await stage.start();
    const ended = once(ready, 'close');
    const child = stage.spawn(...(shell as [string]), stage.script, 'checkpoint', 'web');
    const outcome = outcomeOf(child);
    await once(child.stderr ?? child, 'data');
    child.kill('SIGINT');
    const call = join(stage.ready, stage.slots()[0] ?? '', 'call');
    while (!readFileSync(call, 'utf8').endsWith('\nINT\n')) await sleep(10);
    child.kill('SIGINT');
    assert.equal((await outcome).code, 9);
    await ended; // with all that it had begun
    assert.deepEqual(stage.slots(), []);
  });

  test(`with ${name}: a process that ends, or does not want, costs nothing before it has begun, and is told of after`, async (t) => {
    const stage = await Stage.open(t);
    const began = async (says: string): Promise<Outcome> => {
      const slot = join(stage.ready, `source.${process.pid}.${startTimeOf(process.pid)}.0`);
      mkdirSync(slot);
      makeFifo(join(slot, 'answer'), 0o600);
      const both = openSync(join(slot, 'answer'), constants.O_RDWR | constants.O_NONBLOCK);
      const end = openSync(join(slot, 'answer'), constants.O_WRONLY | constants.O_NONBLOCK);
      closeSync(both);
      const child = stage.spawn(...(shell as [string]), stage.script, 'ls', '-q');
      const outcome = outcomeOf(child);
      while (!existsSync(join(slot, 'call'))) await sleep(5);
      await sleep(50);
      assert.equal(readFileSync(join(slot, 'call'), 'utf8'), `${child.pid} 2\n`);
      writeSync(end, says);
      closeSync(end);
      const result = await outcome;
      rmSync(slot, { recursive: true });
      return result;
    };
    assert.equal((await began('')).stdout, byNode);
    assert.equal((await began('no\n')).stdout, byNode);
    assert.equal((await began('begun\nexit 33\n')).code, 33);
    const lost = await began('begun\n');
    assert.deepEqual([lost.code, lost.stdout], [7, '']);
    assert.match(lost.stderr, /^stasis: the process that ran this command was ended.*\n {2}next: /);
  });
}

test('what a script writes to one file is in its order, whichever process wrote it', async (t) => {
  const stage = await Stage.open(t);
  await stage.start();
  const file = join(stage.folder, 'file');
  await stage.shell(
    '{ for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; "$1" ls -q; done; } >"$2"',
    stage.script,
    file,
  );
  const lines = Array.from({ length: 10 }, (_, i) => `${i + 1}\nweb\n`);
  assert.equal(readFileSync(file, 'utf8'), lines.join(''));
});

test('of twenty callers at once each is answered, by the one process or by one of its own', async (t) => {
  const stage = await Stage.open(t);
  await stage.start();
  const outcomes = await Promise.all(Array.from({ length: 20 }, () => stage.call('ls', '-q')));
  for (const { code, stderr } of outcomes) assert.deepEqual([code, stderr], [0, '']);
  for (const { stdout } of outcomes) assert.ok([served, byNode].includes(stdout), stdout);
  assert.ok(outcomes.some(({ stdout }) => stdout === served));
  assert.equal((await stage.call('ls', '-q')).stdout, served);
});

test('busybox’s shell, which would wait for ever after a signal, starts Node', async (t) => {
  const stage = await Stage.open(t);
  await stage.start();
  const busybox = '/var/cache/stasis/busybox/bin/busybox';
  // It would ask its own `command`; where it is not at hand another shell does that also has `let`.
  const [shell, ...args] = existsSync(busybox) ? [busybox, 'sh'] : ['env', '-u', 'BASH_VERSION', '/bin/dash'];
  if (!existsSync(busybox)) {
    stage.env['PATH'] = `${stage.folder}:${stage.env['PATH']}`;
    writeFileSync(join(stage.folder, 'let'), '', { mode: 0o755 });
  }
  const outcome = await outcomeOf(stage.spawn(shell ?? '', ...args, stage.script, 'ls', '-q'));
  assert.equal(outcome.stdout, byNode);
});

test('a process that was killed, or stands still, or is of another build, is not called', async (t) => {
  const stage = await Stage.open(t);
  const ready = await stage.start();
  ready.kill('SIGSTOP');
  while (!isStopped(ready.pid ?? 0)) await sleep(5);
  assert.equal((await stage.call('ls', '-q')).stdout, byNode);
  ready.kill('SIGCONT');
  assert.equal((await stage.call('ls', '-q')).stdout, served);
  writeFileSync(stage.script, readFileSync(stage.script, 'utf8').replaceAll('ready/source.', 'ready/other.'));
  assert.equal((await stage.call('ls', '-q')).stdout, byNode);
  writeFileSync(stage.script, readFileSync(stage.script, 'utf8').replaceAll('ready/other.', 'ready/source.'));
  ready.kill('SIGKILL');
  await once(ready, 'close');
  assert.equal(stage.slots().length, 1);
  assert.equal((await stage.call('ls', '-q')).stdout, byNode);
  await stage.start();
  assert.equal((await stage.call('ls', '-q')).stdout, served, 'what is left of the other is passed by');
});

test('a caller that could see or do something else has a process of its own', async (t) => {
  const stage = await Stage.open(t);
  await stage.start();
  const others = [
    'ulimit -f 1; exec "$@"',
    'trap \'\' INT; exec "$@"',
    'NODE_OPTIONS=--no-warnings exec "$@"',
    ...(process.getuid?.() === 0
      ? ['-m', '-n', '-p -f', '-U -r'].map((options) => `unshare ${options} "$@"`)
      : []),
  ];
  for (const line of others)
    assert.equal((await stage.shell(line, stage.script, 'ls', '-q')).stdout, byNode, line);
  const silent = await stage.shell('"$@" >&-', stage.script, 'ls', '-q');
  assert.equal(silent.stderr.includes('stasis:'), false);
  assert.equal(
    (await stage.shell('exec 3>&1 5>&1 8>&1; exec "$@"', stage.script, 'ls', '-q')).stdout,
    served,
  );
});

test('the environment, the folder and the terminal are the caller’s', async (t) => {
  const stage = await Stage.open(t, { ...endless().handlers, ...listed });
  await stage.start();
  const moved = await stage.shell(
    'cd "$1"; exec "$2" ls -q --socket stasisd.sock',
    join(stage.ready, '..'),
    stage.script,
  );
  assert.equal(moved.stdout, served);
  assert.equal(
    (await stage.shell('exec "$@"', stage.script, 'ls', '-q', '--socket', 'stasisd.sock')).code,
    7,
  );
  const named = await stage.shell('CONTAINERD_NAMESPACE="a b" exec "$@"', stage.script, 'ls');
  assert.deepEqual([named.code, named.stdout], [2, '']);
  // Progress is drawn on a terminal alone, as wide as that is.
  const line = `stty cols 30; exec ${stage.script} checkpoint web`;
  const terminal = stage.spawn('script', '-qec', line, '/dev/null');
  let typed = false;
  terminal.stdout?.on('data', (chunk: Buffer) => {
    if (typed || !chunk.toString().includes('dumping')) return;
    typed = true;
    terminal.stdin?.write('\x03'); // Ctrl-C
  });
  const drawn = await outcomeOf(terminal);
  assert.equal(drawn.code, 9);
  // eslint-disable-next-line no-control-regex
  assert.match(drawn.stdout, /\r\x1b\[Kcheckpoint web: dumping {2}\d\.\d (?:\^C)?\r/);
  assert.match(drawn.stdout, /cancelled/);
});

test('the command of a caller that was killed ends as one that was killed', async (t) => {
  const { handlers, cancelled } = endless();
  const stage = await Stage.open(t, handlers);
  const ready = await stage.start();
  const ended = once(ready, 'close');
  const child = stage.spawn(stage.script, 'checkpoint', 'web');
  child.stderr?.once('data', () => child.kill('SIGKILL'));
  await ended;
  await cancelled;
});

test('a reader that goes away is no error', async (t) => {
  const containers = Array.from({ length: 5000 }, (_, i) => ({ name: `c${i}`, image: 'x'.repeat(200) }));
  const stage = await Stage.open(t, { list: async () => ListResponse.fromPartial({ containers }) });
  await stage.start();
  const child = stage.spawn(stage.script, 'ls');
  child.stdout?.destroy();
  const { code, stderr } = await outcomeOf(child);
  assert.deepEqual([code, stderr], [0, '']);
});

test('a call that was cut off before it said a word frees the place', async (t) => {
  const stage = await Stage.open(t);
  await stage.start();
  writeFileSync(join(stage.ready, stage.slots()[0] ?? '', 'call'), '');
  assert.equal((await stage.call('ls', '-q')).stdout, byNode);
  while (stage.slots().some((name) => name.startsWith('.') || name.endsWith('.0'))) await sleep(20);
  assert.equal((await stage.call('ls', '-q')).stdout, served);
});

test('it ends with who started it, after the command that runs', async (t) => {
  const { handlers } = endless();
  const stage = await Stage.open(t, handlers);
  const ready = await stage.start();
  const child = stage.spawn(stage.script, 'checkpoint', 'web');
  const outcome = outcomeOf(child);
  await once(child.stderr ?? child, 'data');
  ready.stdin?.end();
  await sleep(100);
  assert.equal(ready.exitCode, null);
  child.kill('SIGINT');
  assert.equal((await outcome).code, 9);
  if (ready.exitCode === null) await once(ready, 'close');
  assert.deepEqual(stage.slots(), []);
});
