import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
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
function call(gate: DiskGate): {
  answer: Promise<unknown>;
  ended: Promise<{ code: number | null; said: string }>;
} {
  const child = spawn('criu', ['swrk', '3'], {
    env: { PATH: `${gate.folder}:${folder}/bin:/usr/bin:/bin`, STASIS_DISK_GATE: gate.folder },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  return {
    answer: once(child.stdout, 'data'),
    ended: once(child, 'close').then(([code]) => ({ code: code as number | null, said })),
  };
}

test('CRIU is asked at once, but not let go before the disk is there; the next time it is not kept', async () => {
  await using gate = new DiskGate(join(folder, 'gate'), undefined);
  let open = false;
  const first = call(gate);
  const ended = first.ended.then((result) => {
    assert.ok(open, 'it did not wait');
    return result;
  });
  await first.answer;
  assert.equal(open, false);
  open = true;
  gate.open();
  assert.deepEqual(await ended, { code: 0, said: 'real swrk 3 gone\n' });
  assert.deepEqual(await call(gate).ended, { code: 0, said: 'real swrk 3 gone\n' });
});

test('where the disk does not come, no restore is begun', async () => {
  let waiting;
  {
    await using gate = new DiskGate(join(folder, 'gate'), undefined);
    const first = call(gate);
    await first.answer;
    waiting = [first.ended, call(gate).ended] as const;
    await sleep(100);
  }
  assert.equal((await waiting[0]).code, 1);
  assert.deepEqual(await waiting[1], { code: 1, said: '' });
  assert.equal(existsSync(join(folder, 'gate')), false);
});

test('CRIU itself is called once the first call waits and the disk is there', async () => {
  await using gate = new DiskGate(join(folder, 'gate'), join(folder, 'bin/criu'));
  const first = call(gate);
  await first.answer;
  gate.open();
  assert.equal(readlinkSync(join(gate.folder, 'criu')), join(folder, 'bin/criu'));
  assert.deepEqual(await first.ended, { code: 0, said: 'real swrk 3 gone\n' });
  assert.deepEqual(await call(gate).ended, { code: 0, said: `real swrk 3 ${gate.folder}\n` });
});

test('a gate that opens while the first call is being started is the script that it started as', async () => {
  rmSync(join(folder, 'bin/criu'));
  symlinkSync('/bin/echo', join(folder, 'bin/criu')); // no script, as CRIU is none
  for (let n = 0; n < 150; n++) {
    await using gate = new DiskGate(join(folder, `gate-${n}`), join(folder, 'bin/criu'));
    const { ended } = call(gate);
    const moment = performance.now() + n * 0.02;
    while (performance.now() < moment); // on this thread: nothing else is to come in between
    gate.open();
    assert.deepEqual(await ended, { code: 0, said: 'swrk 3\n' });
  }
});

test('a gate that a call comes to as it goes is taken away with what that writes down', async () => {
  for (let n = 0; n < 20; n++) {
    const gate = new DiskGate(join(folder, `left-${n}`), undefined);
    const late = spawn('/bin/sh', [
      '-c',
      'for i in $(seq 300); do : >"$0/asked-$i"; done 2>/dev/null',
      gate.folder,
    ]);
    const ended = once(late, 'close');
    while (!existsSync(join(gate.folder, 'asked-1'))) await new Promise((resolve) => setImmediate(resolve));
    await gate[Symbol.asyncDispose]();
    await ended;
    assert.equal(existsSync(gate.folder), false);
  }
});
