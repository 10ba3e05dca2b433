import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { LogSink } from '../../../shim/lifecycle/log-sink.ts';

/** A bundle with the FIFO that containerd makes, and what comes out of it. */
function bundle(t: TestContext, id: string): { path: string; read: () => string } {
  const folder = mkdtempSync(join(tmpdir(), 'log-'));
  const path = join(folder, id);
  mkdirSync(path);
  execFileSync('mkfifo', [join(path, 'log')]);
  const fd = openSync(join(path, 'log'), constants.O_RDWR | constants.O_NONBLOCK);
  t.after(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  const buffer = Buffer.alloc(2 ** 20);
  return { path, read: () => buffer.toString('utf8', 0, readSync(fd, buffer)) };
}

test('a line goes to the FIFO of its container, and one of none to the newest', (t) => {
  const sink = new LogSink();
  t.after(() => sink.closeAll());
  const [first, second] = [bundle(t, 'first'), bundle(t, 'second')];
  sink.open('first', first.path);
  sink.open('second', second.path);
  sink.write('level=info msg=one id=first\n');
  sink.write('level=info msg=two id=second\n');
  sink.write('level=info msg=three\n');
  assert.equal(first.read(), 'level=info msg=one id=first\n');
  assert.equal(second.read(), 'level=info msg=two id=second\nlevel=info msg=three\n');
  sink.close('second');
  sink.write('level=info msg=four\n');
  assert.equal(first.read(), 'level=info msg=four\n');
});

test('a log that nobody reads, or that is not there, holds nobody up', (t) => {
  const sink = new LogSink();
  const { path, read } = bundle(t, 'full');
  sink.write('to nobody\n');
  sink.open('none', join(path, 'missing'));
  sink.open('full', path);
  for (let i = 0; i < 2000; i++) sink.write(`${'x'.repeat(99)}\n`);
  assert.ok(read().startsWith('xxx'), 'what fits is there');
  sink.closeAll();
  sink.write('after the end\n');
});
