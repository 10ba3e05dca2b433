import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FailedPrecondition } from '../../../src/errors.ts';
import { lateOptions, markerOf, sourcesMade, withoutMarker } from '../../../src/sys/mount-late.ts';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'stasis-late-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const late = () => ({
  type: 'bind',
  source: join(folder, 'disk'),
  target: '',
  options: lateOptions(['rw', 'rbind'], join(folder, 'marker')),
});

test('the marker goes with the options, and is none of the kernel’s', () => {
  assert.equal(markerOf(late()), join(folder, 'marker'));
  assert.deepEqual(withoutMarker(late()).options, ['rw', 'rbind']);
  assert.equal(markerOf(withoutMarker(late())), undefined);
});

test('a source that is made later is waited for', async () => {
  writeFileSync(join(folder, 'marker'), '');
  let made = false;
  const waiting = sourcesMade([late()]).then(() => assert.ok(made, 'it did not wait'));
  await sleep(30);
  made = true;
  mkdirSync(join(folder, 'disk'));
  await waiting;
});

test('a marker that goes without its source ends the waiting', async () => {
  writeFileSync(join(folder, 'marker'), '');
  const waiting = sourcesMade([late()]);
  await sleep(10);
  rmSync(join(folder, 'marker'));
  await assert.rejects(
    waiting,
    (error) => error instanceof FailedPrecondition && /was not made/.test(error.message),
  );
});

test('a usual mount is not waited for', async () => {
  await sourcesMade([{ type: 'bind', source: join(folder, 'never'), target: '', options: ['rbind'] }]);
});
