import assert from 'node:assert/strict';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { Mover } from '../../../../shim/stdio/mover.ts';
import { pipe } from '../../../../src/sys/descriptor.ts';
import { bytesWaiting } from '../../../../src/sys/waiting.ts';
import { Readiness } from '../../../../src/sys/epoll.ts';

const readiness = new Readiness();
after(() => readiness.close());

/** Until a condition holds: how soon, a busy machine decides. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
}

const empty =
  (fd: number): (() => boolean) =>
  () =>
    bytesWaiting(fd) === 0;
const text = (fd: number): string => {
  const bytes = Buffer.alloc(1 << 20);
  return bytes.toString('utf8', 0, readSync(fd, bytes));
};

suite('bytes that the kernel alone moves', () => {
  test('come as they are written, wait for room, and end with their source', async () => {
    const [from, to] = [pipe(), pipe()];
    const mover = new Mover({ readiness, from: from.read, to: to.write, rest: 'lose' });
    mover.start();
    writeSync(from.write, 'one');
    await until(empty(from.read));
    assert.equal(mover.pending(), 3, 'the client has not read it');
    assert.equal(text(to.read), 'one');
    assert.equal(mover.pending(), 0);
    const flood = 'x'.repeat(60_000);
    writeSync(from.write, flood);
    await until(empty(from.read));
    writeSync(from.write, flood);
    closeSync(from.write);
    let got = '';
    while (got.length < 120_000) {
      await until(() => bytesWaiting(to.read) > 0);
      got += text(to.read);
    }
    assert.equal(got, flood + flood);
    await mover.done;
    assert.equal(mover.pending(), 0);
    for (const fd of [from.read, to.write]) readiness.forget(fd);
    for (const fd of [from.read, to.write, to.read]) closeSync(fd);
  });

  test('go to the end that a file has at that moment, and nowhere once it fails', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'mover-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'log');
    const [from, file] = [pipe(), openSync(path, 'w')];
    const mover = new Mover({ readiness, from: from.read, to: file, rest: 'lose' });
    mover.start();
    writeSync(from.write, 'one\n');
    await until(empty(from.read));
    truncateSync(path); // as a rotation does that copies
    writeSync(from.write, 'two\n');
    await until(empty(from.read));
    assert.equal(readFileSync(path, 'utf8'), 'two\n');
    closeSync(file);
    writeSync(from.write, 'three\n');
    await until(empty(from.read));
    writeSync(from.write, 'four\n');
    closeSync(from.write);
    await mover.done;
    readiness.forget(from.read);
    closeSync(from.read);
  });

  test('of many at once are all told of, however many come while they are told of', async () => {
    const [pairs, nowhere] = [Array.from({ length: 16 }, () => pipe()), openSync('/dev/null', 'w')];
    const movers = pairs.map(({ read }) => new Mover({ readiness, from: read, to: nowhere, rest: 'lose' }));
    for (const mover of movers) mover.start();
    for (let round = 0; round < 200; round++) {
      for (const { write } of pairs) writeSync(write, 'x');
      await until(() => pairs.every(({ read }) => empty(read)()));
    }
    for (const { write } of pairs) closeSync(write);
    await Promise.all(movers.map(({ done }) => done));
    for (const { read } of pairs) readiness.forget(read);
    for (const { read } of pairs) closeSync(read);
    closeSync(nowhere);
  });

  test('stay where they are when nobody is to lose them', async () => {
    const [from, to] = [pipe(), pipe()];
    closeSync(to.read);
    writeSync(from.write, 'kept');
    const mover = new Mover({ readiness, from: from.read, to: to.write, rest: 'leave' });
    mover.start();
    await mover.done;
    assert.equal(text(from.read), 'kept');
    for (const fd of [from.read, from.write, to.write]) closeSync(fd);
  });
});
