import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import type { CheckpointEntry } from '../../../src/checkpoint/entry.ts';
import { Fills } from '../../../src/checkpoint/fills.ts';
import type { OpenMemory } from '../../../src/checkpoint/memory-store.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { isFill, listFills, writeState, type FillState } from '../../../src/pages/fill-files.ts';
import { startTimeOf } from '../../../src/sys/process.ts';

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

let runDir = '';
beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), 'stasis-fills-'));
  folders.push(runDir);
});

const entry = { id: 'i', container: 'web', name: 'c', memoryBytes: 100 } as CheckpointEntry;
const own: FillState = {
  ...{ kind: 'filling', pid: process.pid, startTime: startTimeOf(process.pid) },
  ...{ doneBytes: 40, stalledSince: 0, why: '' },
};
const quiet = { phase: () => undefined, warn: () => undefined };

function memory(clone = 'tank/reading/i'): OpenMemory & { readers: number } {
  const open = {
    readers: 0,
    ...{ path: '', imageDir: '', clone, record: undefined as never, ready: Promise.resolve() },
    hold: () => void open.readers++,
    close: async () => void open.readers--,
  };
  return open;
}

function fills(): Fills {
  return new Fills({ runDir, later: (_, work) => void work });
}

test('a restore that is lazy is so by a file in its work folder, and keeps its image until all is there', async () => {
  const [all, open] = [fills(), memory()];
  const note = all.note('default', 'copy', entry, open);
  assert.ok(isFill(note.folder));
  assert.equal(isFill(runDir), false);
  note.begun();
  writeState(note.folder, own);
  assert.deepEqual([open.readers, all.readersOf('i'), all.readersOf('other')], [1, ['copy'], []]);
  assert.equal(all.of('default', 'copy')?.state?.doneBytes, 40);
  assert.equal(all.of('other', 'copy'), undefined);
  const waits = all.whenFilled('default', 'copy', quiet, AbortSignal.timeout(5000));
  writeState(note.folder, { ...own, kind: 'complete' });
  await waits;
  await all.whenFilled('default', 'other', quiet, AbortSignal.timeout(5000));
  all.close();
  // Looked at by whoever waits, or by the timer.
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(all.of('default', 'copy'), undefined);
});

test('a restore that failed keeps nothing, and one that began is not undone', () => {
  const [all, open] = [fills(), memory()];
  const failed = all.note('default', 'copy', entry, open);
  failed.abandon();
  assert.deepEqual([open.readers, listFills(runDir)], [0, []]);
  const begun = all.note('default', 'copy', entry, open);
  begun.begun();
  begun.abandon();
  assert.equal(open.readers, 1);
  all.close();
});

test('memory that will not come is said for as long as the task is there, and nobody waits for it', async () => {
  const [all, open] = [fills(), memory()];
  const note = all.note('default', 'copy', entry, open);
  note.begun();
  writeState(note.folder, { ...own, kind: 'failed', why: 'it was killed' });
  await assert.rejects(
    all.whenFilled('default', 'copy', quiet, AbortSignal.timeout(5000)),
    (error) => codeOf(error) === Code.FailedPrecondition && /it was killed/.test(String(error)),
  );
  assert.equal(all.of('default', 'copy')?.state?.why, 'it was killed');
  all.close();
});

test('who waits can give up', async () => {
  const all = fills();
  const note = all.note('default', 'copy', entry, memory());
  note.begun();
  writeState(note.folder, own);
  const why = new Error('given up');
  await assert.rejects(
    all.whenFilled('default', 'copy', quiet, AbortSignal.abort(why)),
    (error) => error === why,
  );
  all.close();
});

test('the next stasisd keeps what is read from, for each of its readers', async () => {
  const before = fills();
  const notes = ['one', 'two'].map((name) => before.note('default', name, entry, memory('tank/reading/x')));
  for (const note of notes) {
    note.begun();
    writeState(note.folder, own);
  }
  before.note('default', 'three', entry, memory(''));
  before.close();
  const released: string[] = [];
  const next = fills();
  const kept = next.load(async (clone) => void released.push(clone));
  assert.deepEqual([...kept], ['tank/reading/x']);
  assert.deepEqual(next.readersOf('i').toSorted(), ['one', 'three', 'two']);
  writeState(notes[0]?.folder ?? '', { ...own, kind: 'complete' });
  await next.whenFilled('default', 'one', quiet, AbortSignal.timeout(5000));
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual(released, []);
  // Its page server is no more, and its folder went with the task.
  rmSync(notes[1]?.folder ?? '', { recursive: true });
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.deepEqual(released, ['tank/reading/x']);
  next.close();
});
