import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { preDump } from '../../../src/checkpoint/pre-dump.ts';
import { assertCanPrecopy, isEnough } from '../../../src/checkpoint/precopy.ts';
import { Cancelled, FailedPrecondition, InvalidArgument } from '../../../src/errors.ts';
import { CriuFinder } from '../../../src/criu/find.ts';
import { OciError } from '../../../src/oci/error.ts';
import type { PreDumpOptions } from '../../../src/oci/types.ts';

test('rounds end at the goal, when all are done, or when one copied no less than the one before', () => {
  const asked = { rounds: 4, goalBytes: 10 };
  assert.equal(isEnough([], asked), false, 'one there is always');
  assert.equal(isEnough([10], asked), true);
  assert.equal(isEnough([1000], asked), false);
  assert.equal(isEnough([1000, 500], asked), false);
  assert.equal(isEnough([1000, 500, 500], asked), true);
  assert.equal(isEnough([1000, 2000], asked), true);
  assert.equal(isEnough([1000, 500, 300, 200], asked), true);
  assert.equal(isEnough([1000], { rounds: 1, goalBytes: 0 }), true);
  assert.equal(isEnough([1000, 0], { rounds: 9, goalBytes: 0 }), true);
});

/** A CRIU whose every answer is this one; a file of a name of this kind is what is found. */
function criuThatAnswers(exitCode: number): CriuFinder {
  const result = {
    ...{ exitCode, stdout: 'Version: 4.2\n', stderr: '', signal: undefined, spawnError: undefined },
    ...{ timedOut: false, cancelled: false, durationMs: 1 },
  };
  return new CriuFinder(async () => result, process.execPath);
}

test('a kernel that does not track changes is told, with what to do, before anything is done', async () => {
  const precopy = { rounds: 1, goalBytes: 0 };
  const asked = { precopy, diskOnly: false };
  await assertCanPrecopy({ criu: criuThatAnswers(0) }, asked);
  await assertCanPrecopy({ criu: criuThatAnswers(1) }, { diskOnly: false });
  await assert.rejects(assertCanPrecopy({ criu: criuThatAnswers(1) }, asked), (error) => {
    assert.ok(error instanceof FailedPrecondition);
    assert.match(error.message, /criu check --feature mem_dirty_track/);
    assert.match(error.remedy ?? '', /leave out --precopy.*CONFIG_MEM_SOFT_DIRTY/);
    assert.equal(error.reason, 'no-dirty-tracking');
    return true;
  });
  const without = assertCanPrecopy({ criu: criuThatAnswers(0) }, { precopy, diskOnly: true });
  await assert.rejects(without, InvalidArgument);
});

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'stasis-pre-dump-'));
  mkdirSync(join(folder, 'pre-2'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A pre-dump of a container whose runtime does this. */
function preDumped(
  run: (options: PreDumpOptions) => Promise<void>,
  { frozen = false, signal = new AbortController().signal } = {},
): ReturnType<typeof preDump> {
  const never = (): never => assert.fail('it runs on');
  return preDump(
    {
      ...{ id: 'web', pid: 42, cgroup: { version: 2, path: '/web', folders: new Map() } },
      runtime: { checkpoint: never, preDump: run },
    },
    { imageDir: join(folder, 'pre-2'), workDir: folder, parentPath: '../pre-1' },
    { isDying: () => false, freezer: { freeze: never, thaw: never, isFrozen: async () => frozen } },
    { timeoutMs: 1000, signal },
  );
}

test('a round answers the bytes of its pages, and nobody else can read them', async () => {
  const answer = await preDumped(async ({ imageDir, parentPath, id }) => {
    assert.deepEqual([parentPath, id], ['../pre-1', 'web']);
    writeFileSync(join(imageDir, 'pages-1.img'), Buffer.alloc(8192), { mode: 0o644 });
    writeFileSync(join(imageDir, 'pagemap-1.img'), 'x');
  });
  assert.deepEqual(answer, { pageBytes: 8192n, refusal: '' });
  assert.equal(statSync(join(folder, 'pre-2', 'pages-1.img')).mode & 0o777, 0o600);
});

test('what CRIU or the runtime objects to is an answer, and leaves nothing', async () => {
  const log = 'pre-dump.log';
  const half = (options: PreDumpOptions): void =>
    writeFileSync(join(options.imageDir, 'pages-1.img'), 'half');
  const failed = await preDumped(async (options) => {
    half(options);
    writeFileSync(join(folder, log), "(00.1) Error (criu/x.c:1): Can't dump a unicorn\n");
    throw new OciError('criu', 'pre-dump', { subject: 'web', said: 'exit status 1' });
  });
  assert.match(failed.refusal, /unicorn/);
  assert.deepEqual(readdirSync(join(folder, 'pre-2')), []);
  const unusual = await preDumped(async () => {
    throw new OciError('unsupported', 'pre-dump', { subject: 'web', said: 'of usual ones alone' });
  });
  assert.equal(unusual.refusal, 'of usual ones alone', 'and not what the log of a former round says');
  const paused = await preDumped(async () => assert.fail('it is paused'), { frozen: true });
  assert.match(paused.refusal, /paused/);
});

test('it ends with its caller, by taking the folder away from CRIU', async () => {
  const caller = new AbortController();
  const dumping = preDumped(
    async ({ imageDir }) => {
      caller.abort();
      while (readdirSync(folder).includes('pre-2')) await new Promise(setImmediate);
      assert.ok(imageDir.endsWith('pre-2'));
      throw new OciError('criu', 'pre-dump', { subject: 'web', said: 'exit status 1' });
    },
    { signal: caller.signal },
  );
  await assert.rejects(dumping, Cancelled);
  assert.deepEqual(readdirSync(join(folder, 'pre-2')), []);
});
