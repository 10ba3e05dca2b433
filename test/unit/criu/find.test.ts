import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readlinkSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CriuFinder, criuFolder, findProgram, isAtLeast } from '../../../src/criu/find.ts';
import { Unavailable } from '../../../src/errors.ts';
import type { CommandResult, Exec } from '../../../src/sys/command.ts';

const folder = mkdtempSync(join(tmpdir(), 'stasis-criu-'));
after(() => rmSync(folder, { recursive: true }));
const program = join(folder, 'criu-4');
writeFileSync(program, '');
chmodSync(program, 0o755);

function answering(version: string, check: Partial<CommandResult> = {}): { exec: Exec; calls: string[] } {
  const calls: string[] = [];
  const exec: Exec = async (_file, args) => {
    calls.push(args.join(' '));
    const result = {
      signal: undefined,
      stderr: '',
      timedOut: false,
      cancelled: false,
      durationMs: 1,
      spawnError: undefined,
    };
    return args[0] === '--version'
      ? { ...result, exitCode: 0, stdout: `Version: ${version}\n` }
      : { ...result, exitCode: 0, stdout: '', ...check };
  };
  return { exec, calls };
}

test('versions compare by number, not by text', () => {
  assert.equal(isAtLeast('4.10', 4, 2), true);
  assert.equal(isAtLeast('4.1.1', 4, 2), false);
  assert.equal(isAtLeast('3.17.1', 3, 19), false);
  assert.equal(isAtLeast('5', 4, 2), true);
});

test('a CRIU before 4.2 is not safe for clones', async () => {
  assert.equal((await new CriuFinder(answering('4.1.1').exec, program).get()).safeForClones, false);
  assert.equal((await new CriuFinder(answering('4.2.1').exec, program).get()).safeForClones, true);
});

test('the answers are kept until the program changes', async () => {
  const { exec, calls } = answering('4.2');
  const finder = new CriuFinder(exec, program);
  await finder.get();
  await Promise.all([finder.get(), finder.has('uffd'), finder.has('uffd')]);
  assert.deepEqual(calls, ['--version', 'check', 'check --feature uffd']);
  utimesSync(program, 1, 1);
  await finder.get();
  assert.equal(calls.length, 5);
});

test('a kernel that CRIU objects to is told in its words', async () => {
  const { exec } = answering('3.17', {
    exitCode: 1,
    stderr: 'Error (criu/vdso.c:1): vdso: not recognized\n',
  });
  const criu = await new CriuFinder(exec, program).get();
  assert.equal(criu.works, false);
  assert.equal(criu.complaint, 'vdso: not recognized');
});

test('a check that took too long says nothing of CRIU, and is made again', async () => {
  const late: Partial<CommandResult> = { exitCode: undefined, signal: 'SIGKILL', timedOut: true };
  const busy = answering('4.2', late);
  let exec = busy.exec;
  const finder = new CriuFinder((...call) => exec(...call), program);
  await assert.rejects(finder.get(), /check: no answer in 60 s/);
  exec = answering('4.2').exec;
  assert.equal((await finder.get()).works, true);
  exec = busy.exec;
  assert.equal(await finder.has('uffd'), false);
  exec = answering('4.2').exec;
  assert.equal(await finder.has('uffd'), true);
});

test('a missing program is named with the remedy', async () => {
  const missing = (error: unknown): boolean =>
    error instanceof Unavailable && /"nope" is not on PATH/.test(error.message);
  await assert.rejects(findProgram('nope', { PATH: `${folder}:relative` }), missing);
  await assert.rejects(findProgram(join(folder, 'nope')), /is not an executable file/);
});

test('a program of another name is reached through a link called criu', async () => {
  const links = join(folder, 'links');
  assert.equal(await criuFolder('/usr/sbin/criu', links), '/usr/sbin');
  await Promise.all([criuFolder(program, links), criuFolder(program, links)]);
  assert.equal(readlinkSync(join(links, 'criu')), program);
});
