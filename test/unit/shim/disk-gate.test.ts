import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskGate } from '../../../shim/process/disk-gate.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'stasis-gate-'));
  mkdirSync(join(folder, 'bin'));
  writeFileSync(join(folder, 'bin/criu'), '#!/bin/sh\necho "real $* ${STASIS_DISK_GATE-gone}"\n');
  chmodSync(join(folder, 'bin/criu'), 0o755);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Calls `criu` as a runtime does, by its name. */
function call(gate: DiskGate): { ended: Promise<{ code: number | null; said: string }> } {
  const child = spawn('criu', ['swrk', '3'], {
    env: { PATH: `${gate.folder}:${folder}/bin:/usr/bin:/bin`, STASIS_DISK_GATE: gate.folder },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  return { ended: once(child, 'close').then(([code]) => ({ code: code as number | null, said })) };
}

test('CRIU starts when the disk is there, the first time and every other', async () => {
  await using gate = new DiskGate(join(folder, 'gate'));
  let open = false;
  const first = call(gate).ended.then((result) => {
    assert.ok(open, 'it did not wait');
    return result;
  });
  await sleep(100);
  open = true;
  gate.open();
  assert.deepEqual(await first, { code: 0, said: 'real swrk 3 gone\n' });
  assert.deepEqual(await call(gate).ended, { code: 0, said: 'real swrk 3 gone\n' });
});

test('where the disk does not come, it ends without CRIU', async () => {
  let waiting;
  {
    await using gate = new DiskGate(join(folder, 'gate'));
    waiting = call(gate).ended;
    await sleep(100);
  }
  assert.deepEqual(await waiting, { code: 1, said: '' });
  assert.equal(existsSync(join(folder, 'gate')), false);
});
