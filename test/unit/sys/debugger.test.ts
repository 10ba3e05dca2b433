import assert from 'node:assert/strict';
import { url } from 'node:inspector';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { refuseDebugger } from '../../../src/sys/process.ts';

test('no debugger is opened for a signal', async () => {
  refuseDebugger();
  process.kill(process.pid, 'SIGUSR1');
  await sleep(200); // it would be opened by another thread
  assert.equal(url(), undefined);
});
