import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { exitJournal, ExitJournal, exitsLeft } from '../../../../shim/guard/exit-journal.ts';
import type { ExitNote } from '../../../../shim/guard/messages.ts';
import { withLastExit } from '../../../../shim/lifecycle/dead.ts';
import type { TaskRecord } from '../../../../shim/container/record.ts';
import { Paths } from '../../../../shim/paths.ts';

const self = { pid: 5, startTime: '100' };
const exit = (pid: number, status: number): ExitNote => ({
  pid,
  startTime: '7',
  status,
  seconds: '1',
  nanos: 2,
});

function paths(t: TestContext): Paths {
  const folder = mkdtempSync(join(tmpdir(), 'exits-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return new Paths(folder);
}

suite('how processes have ended, for whoever follows a killed guard', () => {
  test('what nobody has come to the end of is there, also over a program that takes the place of another', (t) => {
    const folder = paths(t).exits;
    const journal = new ExitJournal(folder, self, []);
    for (const pid of [1, 2, 3]) journal.add(exit(pid, pid));
    journal.forget([2], [exit(1, 1), exit(3, 3)]);
    assert.deepEqual(exitsLeft(folder, self), [exit(1, 1), exit(3, 3)]);
    const next = new ExitJournal(folder, self, [exit(1, 1)]);
    appendFileSync(exitJournal(folder, self), '{"exit":{"pid":9');
    assert.deepEqual(exitsLeft(folder, self), [exit(1, 1)]);
    next.forget([1], []);
    assert.equal(readFileSync(exitJournal(folder, self), 'utf8'), '', 'it does not grow for ever');
    next.remove();
    assert.equal(existsSync(exitJournal(folder, self)), false);
    assert.deepEqual(exitsLeft(folder, self), []);
  });

  test('many ends of which few count are written anew', (t) => {
    const folder = paths(t).exits;
    const journal = new ExitJournal(folder, self, []);
    journal.add(exit(1, 1));
    for (let pid = 2; pid < 1000; pid++) {
      journal.add(exit(pid, 0));
      journal.forget([pid], [exit(1, 1)]);
    }
    assert.ok(readFileSync(exitJournal(folder, self), 'utf8').split('\n').length <= 1002);
    assert.deepEqual(exitsLeft(folder, self), [exit(1, 1)]);
  });

  test("a dead shim's record gets the end of its process, and of no other process with that pid", (t) => {
    const all = paths(t);
    new ExitJournal(all.exits, self, []).add(exit(42, 3));
    const record = { shim: self, pid: 42, startTime: '7' } as TaskRecord;
    assert.equal(withLastExit(all, record).exit?.status, 3);
    assert.equal(withLastExit(all, { ...record, startTime: '8' }).exit, undefined);
    const known = { status: 0, seconds: '1', nanos: 0 };
    assert.equal(withLastExit(all, { ...record, exit: known }).exit?.status, 0);
  });
});
