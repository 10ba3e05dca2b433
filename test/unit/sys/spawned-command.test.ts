import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync, openSync, closeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { execWith, OwnChildren } from '../../../src/sys/spawned-command.ts';
import { ChildReaper } from '../../../shim/reaper/reaper.ts';
import { exec as usual, type CommandOptions, type Exec } from '../../../src/sys/command.ts';

function start(t: TestContext): Exec {
  const reaper = new ChildReaper().start();
  t.after(() => reaper.stop());
  return execWith(reaper);
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'exec-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('a program that is spawned gives the same result as one started by child_process', async (t) => {
  const exec = start(t);
  const dir = folder(t);
  writeFileSync(join(dir, 'text'), 'no program', { mode: 0o644 });
  writeFileSync(join(dir, 'script'), '#!/bin/sh\necho found', { mode: 0o755 });
  const sh = (script: string): [string, string[]] => ['/bin/sh', ['-c', script]];
  const cases: [string, string[], CommandOptions?][] = [
    [...sh('exit 3')],
    [...sh('kill -9 $$')],
    [...sh('echo out; echo err >&2; exit 1')],
    [...sh('yes | head -c 2000000')],
    [...sh('pwd; echo "$NAME"'), { cwd: '/usr', env: { NAME: 'a b=c', PATH: '/bin' } }],
    [...sh('cat'), {}],
    ['script', [], { env: { PATH: `/nowhere:${dir}` } }],
    ['text', [], { env: { PATH: dir } }],
    ['no-such-program', []],
    ['/no/such/program', []],
    [join(dir, 'text'), []],
    [...sh('true'), { cwd: '/no/such/folder' }],
    [...sh('exec sleep 60'), { timeoutMs: 50 }],
    [...sh('exec sleep 60'), { signal: AbortSignal.timeout(50) }],
    [...sh('exec sleep 60'), { signal: AbortSignal.abort() }],
    [...sh('ulimit -Sn; ulimit -Hn'), { openFiles: 321 }],
    [...sh('ulimit -Sn'), { openFiles: 100 }], // less than may be open here: by way of a shell
    // Node ignores SIGPIPE; a program must not inherit that.
    [...sh('exec grep Sig[BI] /proc/self/status')],
  ];
  for (const [file, args, options] of cases) {
    const [one, two] = await Promise.all([exec(file, args, options), usual(file, args, options)]);
    assert.deepEqual({ ...one, durationMs: 0 }, { ...two, durationMs: 0 }, `${file} ${args.join(' ')}`);
  }
});

test('a program gets the streams that it is given, and nothing of the other descriptors', async (t) => {
  const exec = start(t);
  const file = join(folder(t), 'out');
  const fd = openSync(file, 'w');
  const script = 'ls -l /proc/self/fd | wc -l; echo two >&2; readlink /proc/self/fd/0';
  await exec('/bin/sh', ['-c', script], { stdioFds: ['ignore', fd, fd] });
  closeSync(fd);
  const [count, ...rest] = readFileSync(file, 'utf8').split('\n');
  assert.deepEqual(rest, ['two', '/dev/null', '']);
  assert.ok(Number(count) <= 6, `${count} lines of ls, with the total and its own`);
});

test('many programs at once get their own results, beside children of child_process', async (t) => {
  const exec = start(t);
  const codes = Array.from({ length: 60 }, (_, n) => n);
  const results = await Promise.all(
    codes.map(async (n) => (await (n % 3 === 0 ? usual : exec)('/bin/sh', ['-c', `exit ${n}`])).exitCode),
  );
  assert.deepEqual(results, codes);
});

test('who waits for its own children alone gets their results, and leaves others to their starters', async () => {
  const exec = execWith(new OwnChildren());
  const codes = Array.from({ length: 60 }, (_, n) => n);
  const results = await Promise.all(
    codes.map(async (n) => (await (n % 3 === 0 ? usual : exec)('/bin/sh', ['-c', `exit ${n}`])).exitCode),
  );
  assert.deepEqual(results, codes);
});

test('a program that is not gone in time after it was killed keeps nobody waiting', async () => {
  const children = { child: (): void => undefined }; // it is as if it never ended
  const exec = execWith(children);
  const result = await exec('/bin/sh', ['-c', 'exec sleep 60'], { timeoutMs: 50, goneMs: 50 });
  assert.deepEqual([result.exitCode, result.signal, result.timedOut], [undefined, undefined, true]);
});

test('a program that is put earlier on PATH is the one to be started from then on', async (t) => {
  const exec = start(t);
  const [first, second] = [folder(t), folder(t)];
  writeFileSync(join(second, 'program'), '#!/bin/sh\necho second', { mode: 0o755 });
  const env = { PATH: `${first}:${second}` };
  assert.equal((await exec('program', [], { env })).stdout, 'second\n');
  writeFileSync(join(first, 'program'), '#!/bin/sh\necho first', { mode: 0o755 });
  assert.equal((await exec('program', [], { env })).stdout, 'first\n');
});

test('a grandchild that keeps the output open does not keep the result back', async (t) => {
  const exec = start(t);
  const result = await exec('/bin/sh', ['-c', 'sleep 5 & echo $!']);
  assert.equal(result.exitCode, 0);
  assert.ok(result.durationMs < 4000);
  process.kill(Number(result.stdout), 'SIGKILL');
});
