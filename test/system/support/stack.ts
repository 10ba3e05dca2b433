import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CommandResult, exec } from '../../../src/sys/command.ts';
import { buildImage, imageName } from './image.ts';
import { slowness } from './slowness.ts';

/** The stack that `scripts/dev env` describes. Without one, system tests cannot run: that is an error, not a skip. */
function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') {
    throw new Error(`${name} is not set: bring a stack up and take its environment, as test/README.md says`);
  }
  return value;
}

export const stack = {
  state: variable('STASIS_STATE'),
  root: variable('STASIS_ROOT'),
  address: variable('CONTAINERD_ADDRESS'),
  config: variable('STASIS_CONFIG'),
  project: join(import.meta.dirname, '../../..'),
};

export { imageName as image };
export const runtime = 'io.containerd.stasis.v2';

/** Runs a program; its failure is in the result. */
export async function attempt(
  file: string,
  args: readonly string[],
  timeoutMs = 120_000,
): Promise<CommandResult> {
  return exec(file, args, { timeoutMs: timeoutMs * slowness });
}

/** Runs a program that has to succeed, and answers its output. */
export async function must(file: string, args: readonly string[], timeoutMs?: number): Promise<string> {
  const result = await attempt(file, args, timeoutMs);
  if (result.exitCode !== 0) {
    throw new Error(
      `${file} ${args.join(' ')} ended with ${result.exitCode ?? result.signal}: ${result.stderr}${result.stdout}`,
    );
  }
  return result.stdout;
}

export const ctr = (...args: string[]): Promise<string> => must('ctr', args);
export const stasis = (...args: string[]): Promise<string> => must('stasis', args);

/** A CLI call that has to fail with this exit code; answers what it said. */
export async function refused(code: number, ...args: string[]): Promise<string> {
  const result = await attempt('stasis', args);
  assert.equal(result.exitCode, code, `stasis ${args.join(' ')}: ${result.stderr}${result.stdout}`);
  assert.doesNotMatch(result.stderr, /\n\s+at /, 'no stack trace reaches a user');
  assert.doesNotMatch(result.stderr, /\(node:\d+\)/, 'no warning of Node itself reaches a user');
  return result.stderr;
}

/** `zfs list` of everything below the stack's root, snapshots too, sorted. */
export function datasets(): string[] {
  return execFileSync('zfs', ['list', '-H', '-r', '-t', 'all', '-o', 'name', stack.root], {
    encoding: 'utf8',
  })
    .split('\n')
    .filter((name) => name !== '')
    .sort();
}

/** Waits until `probe` answers something. @throws after the deadline, saying what was waited for */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs * slowness;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`waited ${(timeoutMs * slowness) / 1000} s for ${what}`);
    await sleep(20);
  }
}

let imported: Promise<void> | undefined;

/**
 * Imports the test image: busybox, perl-base and the writer (see writer.pl). Once for each process. STASIS_TEST_IMAGE names
 * one that was made before.
 */
export function importImage(): Promise<void> {
  imported ??= (async () => {
    if ((await ctr('images', 'ls', '-q')).split('\n').includes(imageName)) return;
    const made = process.env['STASIS_TEST_IMAGE'];
    if (made !== undefined) {
      await ctr('images', 'import', '--snapshotter', 'stasis', made);
      return;
    }
    const folder = mkdtempSync(join(stack.state, 'data/tmp/image-'));
    buildImage(join(folder, 'image.tar'), folder);
    await ctr('images', 'import', '--snapshotter', 'stasis', join(folder, 'image.tar'));
    rmSync(folder, { recursive: true });
  })();
  return imported;
}

/** stasisd's process id, from the socket's owner in the stack. */
export function stasisdPid(): number {
  const status = JSON.parse(
    execFileSync(join(stack.project, 'scripts/dev'), ['status', '--json', '--state', stack.state], {
      encoding: 'utf8',
    }),
  ) as { stasisd: { pid: number } };
  return status.stasisd.pid;
}

/** Runs scripts/dev for this stack. */
export function dev(...args: string[]): Promise<string> {
  return must(join(stack.project, 'scripts/dev'), [...args, '--state', stack.state]);
}

export function readIfThere(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}
