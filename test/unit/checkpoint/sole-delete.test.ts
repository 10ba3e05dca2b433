import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  endSoleDelete,
  expectSoleDelete,
  forgetSoleDelete,
  passSoleDelete,
} from '../../../src/checkpoint/rewind/sole-delete.ts';
import { FailedPrecondition, NotFound } from '../../../src/errors.ts';

/** A task's run folder, and the bundle that its record names. */
function made(t: TestContext): { runDir: string; folder: string; bundle: string; work: string } {
  const runDir = mkdtempSync(join(tmpdir(), 'stasis-sole-'));
  t.after(() => rmSync(runDir, { recursive: true }));
  const folder = join(runDir, 'tasks/default/web');
  const [bundle, work] = [join(runDir, 'state/web'), join(runDir, 'root/web')];
  for (const path of [folder, bundle, work]) mkdirSync(path, { recursive: true });
  symlinkSync(work, join(bundle, 'work'));
  writeFileSync(join(folder, 'state.json'), JSON.stringify({ bundle }));
  return { runDir, folder, bundle, work };
}
const done = async (): Promise<string> => 'done';

test('of a task that is rewound one Delete passes, also where one before it failed', async (t) => {
  const { runDir, folder } = made(t);
  const pass = (work = done): Promise<string> => passSoleDelete(folder, 'web', work);
  assert.equal(await pass(), 'done');
  assert.equal(await pass(), 'done');
  using _ = expectSoleDelete(runDir, 'default', 'web');
  await assert.rejects(
    pass(() => Promise.reject(new Error('no'))),
    /^Error: no$/,
  );
  const first = pass(() => sleep(5, 'done'));
  await assert.rejects(pass(), FailedPrecondition); // while the first is at work
  assert.equal(await first, 'done');
  await assert.rejects(pass(), FailedPrecondition);
});

test('a kill, or the end of the rewind, lets all pass again; so does time', async (t) => {
  const { runDir, folder } = made(t);
  const pass = (): Promise<string> => passSoleDelete(folder, 'web', done);
  const expected = expectSoleDelete(runDir, 'default', 'web');
  endSoleDelete(folder); // of the former task: the mark stays
  await pass();
  await assert.rejects(pass(), FailedPrecondition);
  endSoleDelete(folder);
  assert.equal(await pass(), 'done');
  for (const end of [() => forgetSoleDelete(folder), () => expected[Symbol.dispose]()]) {
    expectSoleDelete(runDir, 'default', 'web');
    await pass();
    await assert.rejects(pass(), FailedPrecondition);
    end();
    assert.equal(await pass(), 'done');
  }
  expectSoleDelete(runDir, 'default', 'web');
  await pass();
  utimesSync(join(folder, 'rewind'), new Date(), new Date(Date.now() - 31_000));
  assert.equal(await pass(), 'done');
});

test('a Delete of what is not there was one, and a mark of a stasisd that has ended none', async (t) => {
  const { runDir, folder } = made(t);
  using _ = expectSoleDelete(runDir, 'default', 'web');
  const gone = passSoleDelete(folder, 'web', () => Promise.reject(new NotFound('no task')));
  await assert.rejects(gone, NotFound);
  await assert.rejects(passSoleDelete(folder, 'web', done), FailedPrecondition);
  writeFileSync(join(folder, 'rewind'), `deleted ${process.pid} 1`);
  assert.equal(await passSoleDelete(folder, 'web', done), 'done');
});

test('the bundle is waited for until nothing of it is there', async (t) => {
  const { runDir, bundle, work } = made(t);
  using expected = expectSoleDelete(runDir, 'default', 'web');
  let gone = false;
  const waited = expected.bundleGone().then(() => (gone = true));
  const hidden = join(runDir, 'root/.web');
  rmSync(bundle, { recursive: true });
  renameSync(work, hidden);
  await sleep(20);
  assert.equal(gone, false);
  rmSync(hidden, { recursive: true });
  await waited;
});

test('where no shim of ours has the task nothing is left', (t) => {
  const { runDir } = made(t);
  using _ = expectSoleDelete(runDir, 'default', 'other');
  assert.equal(existsSync(join(runDir, 'tasks/default/other')), false);
});
