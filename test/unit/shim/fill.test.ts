import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Fill } from '../../../shim/container/fill.ts';
import { silent } from '../../../src/log.ts';
import { readState, writeNote } from '../../../src/pages/fill-files.ts';
import type { PageServer, PageServerEnd } from '../../../src/pages/page-server.ts';

const runDir = mkdtempSync(join(tmpdir(), 'stasis-fill-'));
after(() => rmSync(runDir, { recursive: true }));

/** A fill with a page server that ends as the test says. */
function setUp({ timeoutMs = 60_000, started = Promise.resolve() } = {}) {
  const checkpoint = { id: 'i', container: 'web', name: 'c' };
  const folder = writeNote(runDir, {
    ...{ namespace: 'default', container: 'copy', checkpoint, clone: '', totalBytes: 100 },
  });
  const end = Promise.withResolvers<PageServerEnd>();
  const calls: string[] = [];
  const server: PageServer = {
    pid: process.pid,
    ended: end.promise,
    readBytes: () => 7,
    stop: () => {
      calls.push('stop');
      end.resolve({ complete: false, why: 'stopped' });
    },
  };
  const fill = new Fill({
    ...{ folder, imageDir: '/image', servers: { start: () => started.then(() => server) } },
    ...{ log: silent, timeoutMs },
    pids: async () => [],
    end: async () => void calls.push('end'),
    breakOff: async () => void calls.push('break off'),
  });
  return { fill, folder, calls, serverEnds: end.resolve };
}

test('memory is all there when the page server says so', async () => {
  const { fill, folder, calls, serverEnds } = setUp();
  await fill.start();
  fill.restored();
  assert.equal(fill.isMissing, true);
  assert.equal(readState(folder)?.kind, 'filling');
  serverEnds({ complete: true, why: '' });
  await fill.ended;
  assert.deepEqual([fill.isMissing, readState(folder)?.kind, calls], [false, 'complete', []]);
  await fill.remove();
  assert.equal(existsSync(folder), false);
});

test('a page server that ends before has the container ended, which stays without its memory', async () => {
  const { fill, folder, calls, serverEnds } = setUp();
  await fill.start();
  fill.restored();
  serverEnds({ complete: false, why: 'killed by SIGKILL' });
  await fill.ended;
  assert.equal(fill.isMissing, true);
  assert.match(readState(folder)?.why ?? '', /killed by SIGKILL/);
  assert.deepEqual(calls, ['end']);
  fill.stop(); // when its first process has been reaped
  assert.equal(readState(folder)?.kind, 'failed', 'it says why for as long as the task is there');
  await fill.remove();
});

test('one that ends while tasks are restored has that broken off, as it waits for a page', async () => {
  const { fill, calls, serverEnds } = setUp();
  await fill.start();
  serverEnds({ complete: false, why: 'exit code 1' });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(calls, ['break off']);
  assert.match(fill.lost ?? '', /exit code 1/);
  fill.stop();
  await fill.ended;
  await fill.remove();
});

test('one that brings nothing for too long has the container ended', async () => {
  const { fill, folder, calls } = setUp({ timeoutMs: 1 });
  await fill.start();
  fill.restored();
  await fill.ended;
  await new Promise((resolve) => setImmediate(resolve));
  assert.match(readState(folder)?.why ?? '', /no page has come/);
  assert.deepEqual(calls.slice(0, 1), ['end']);
  await fill.remove();
});

test('a container that ends before takes its page server along', async () => {
  const { fill, calls } = setUp();
  await fill.start();
  fill.restored();
  fill.stop();
  await fill.ended;
  assert.deepEqual([calls, fill.isMissing], [['stop'], false]);
  await fill.remove();
});

test('a page server that starts when its container has gone is ended again', async () => {
  const { promise: started, resolve } = Promise.withResolvers<void>();
  const { fill, folder, calls } = setUp({ started });
  const starting = fill.start();
  fill.stop();
  await fill.ended;
  resolve();
  await starting;
  assert.deepEqual(calls, ['stop']);
  assert.equal(readState(folder), undefined, 'it fills nothing');
  await fill.remove();
});
