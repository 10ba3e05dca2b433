import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openFifoForWriting } from '../../../shim/stdio/fifo.ts';
import { Flow } from '../../../shim/stdio/flow.ts';
import { outputPipe } from '../../../shim/stdio/pipes.ts';
import { untilTaken } from '../../../shim/stdio/taken.ts';
import { hasErrno } from '../../../src/errors.ts';
import { closeQuietly, pipe } from '../../../src/sys/descriptor.ts';
import { splice } from '../../../src/sys/splice.ts';

const { O_RDONLY, O_NONBLOCK } = constants;

interface Course {
  /** The process's end. */
  readonly write: number;
  /** The client's end, which does not block. */
  readonly read: number;
  readonly flow: Flow;
}

async function course(t: TestContext): Promise<Course> {
  const folder = mkdtempSync(join(tmpdir(), 'flow-'));
  const path = join(folder, 'fifo');
  execFileSync('mkfifo', [path]);
  const { childFd, readFd } = await outputPipe({ uid: 0, gid: 0 });
  const flow = new Flow(readFd, await openFifoForWriting(path));
  const read = openSync(path, O_RDONLY | O_NONBLOCK);
  t.after(() => {
    flow.close();
    for (const fd of [read, childFd]) closeQuietly(fd);
    rmSync(folder, { recursive: true });
  });
  return { write: childFd, read, flow };
}

/** What can be read without waiting. */
function available(fd: number): Buffer {
  const chunks: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(65536);
    try {
      const length = readSync(fd, buffer);
      if (length === 0) break;
      chunks.push(buffer.subarray(0, length));
    } catch (error) {
      if (!hasErrno(error, 'EAGAIN')) throw error;
      break;
    }
  }
  return Buffer.concat(chunks);
}

test('what is written arrives whole and in order, in pieces of any size, whoever is slow', async (t) => {
  const { write, read, flow } = await course(t);
  flow.start();
  const sent = createHash('sha256');
  const got = createHash('sha256');
  let [written, received] = [0, 0];
  const sizes = [1, 10, 4095, 4096, 4097, 65536, 200_000, 3];
  for (let n = 0; n < 200; n++) {
    const bytes = randomBytes(sizes[n % sizes.length] ?? 1);
    // In parts that the pipe takes: one that is full would block this thread, and the flow with it.
    for (let at = 0; at < bytes.length; at += 4096) {
      const part = bytes.subarray(at, at + 4096);
      while (written - received > 128 * 1024) {
        await sleep(1);
        const some = available(read);
        got.update(some);
        received += some.length;
      }
      writeSync(write, part);
      sent.update(part);
      written += part.length;
    }
    if (n % 3 === 0) await sleep(1);
  }
  closeSync(write);
  while (received < written) {
    await sleep(1);
    const some = available(read);
    got.update(some);
    received += some.length;
  }
  await flow.done;
  assert.equal(received, written);
  assert.equal(got.digest('hex'), sent.digest('hex'));
});

test('nothing passes before the start', async (t) => {
  const { write, read, flow } = await course(t);
  writeSync(write, 'early');
  await sleep(20);
  assert.equal(available(read).length, 0);
  flow.start();
  await sleep(20);
  assert.equal(available(read).toString(), 'early');
});

test('a reader that comes late gets what was written, and the end comes only then', async (t) => {
  const { write, read, flow } = await course(t);
  flow.start();
  // More than the FIFO takes: the rest stays in the pipe.
  const bytes = randomBytes(400 * 1024);
  for (let at = 0; at < bytes.length; at += 4096) {
    writeSync(write, bytes.subarray(at, at + 4096));
    if (at % 65536 === 0) await sleep(1);
  }
  closeSync(write);
  let done = false;
  void flow.done.then(() => (done = true));
  await sleep(50);
  assert.equal(done, false, 'the FIFO is full');
  const chunks: Buffer[] = [];
  while (!done) {
    chunks.push(available(read));
    await sleep(1);
  }
  chunks.push(available(read));
  assert.ok(Buffer.concat(chunks).equals(bytes));
});

test('many small writes without a reader stay together as densely as in one pipe', async (t) => {
  const { write, read, flow } = await course(t);
  flow.start();
  for (let n = 0; n < 2000; n++) {
    writeSync(write, `line ${n}\n`);
    if (n % 10 === 0) await sleep(0);
  }
  await sleep(20);
  const lines = available(read).toString().trim().split('\n');
  assert.equal(lines.length, 2000);
  assert.equal(lines.at(-1), 'line 1999');
});

test('what the client has not read is pending, also after the FIFO was given its end, until it reads or nobody asks', async (t) => {
  const { write, read, flow } = await course(t);
  flow.start();
  assert.equal(flow.pending(), 0);
  const bytes = randomBytes(300 * 1024); // more than the FIFO takes
  for (let at = 0; at < bytes.length; at += 4096) {
    writeSync(write, bytes.subarray(at, at + 4096));
    if (at % 65536 === 0) await sleep(1);
  }
  closeSync(write);
  assert.equal(flow.pending(), bytes.length);
  let taken = false;
  const wait = untilTaken([flow]).then(() => (taken = true));
  const chunks = [available(read)];
  await flow.done;
  assert.ok(!taken && flow.pending() > 0, 'the rest is in the FIFO, which has its end');
  while (!taken) {
    chunks.push(available(read));
    await sleep(1);
  }
  await wait;
  assert.ok(Buffer.concat(chunks).equals(bytes));
  assert.equal(readSync(read, Buffer.alloc(1)), 0, 'the client meets the end');
  flow.told();
  assert.equal(flow.pending(), 0);
});

test('a client that does not read is waited for a moment only', async (t) => {
  const { write, flow } = await course(t);
  flow.start();
  writeSync(write, 'unread');
  closeSync(write);
  await untilTaken([flow]); // or the test runs into its time limit
  assert.equal(flow.pending(), 6);
  flow.close();
  assert.equal(flow.pending(), 0);
});

test('where the processor is short a client is waited for for longer: it gets to read as seldom as this process to look', async () => {
  const never = new Int32Array(new SharedArrayBuffer(4));
  const begin = performance.now();
  const isRead = (): boolean => performance.now() - begin > 300;
  const pending = (): number => {
    Atomics.wait(never, 0, 0, 5); // others have the processor
    return isRead() ? 0 : 51;
  };
  await untilTaken([{ pending }]);
  assert.ok(isRead());
});

test('closing ends a flow whose FIFO is full', async (t) => {
  const { write, flow } = await course(t);
  flow.start();
  for (let n = 0; n < 80; n++) {
    writeSync(write, Buffer.alloc(4096));
    await sleep(0);
  }
  flow.close();
  await flow.done;
  assert.throws(() => writeSync(write, 'x'), /EPIPE/);
});

test('splice says 0 where nothing is to be moved or fits, and EINVAL where there is no pipe', (t) => {
  const [one, two] = [pipe(), pipe()];
  const file = openSync('/dev/null', 'r+');
  t.after(() => [one.read, one.write, two.read, two.write, file].forEach(closeQuietly));
  assert.equal(splice(one.read, two.write, 4096), 0);
  writeSync(one.write, 'moved');
  assert.equal(splice(one.read, two.write, 4096), 5);
  assert.equal(available(openSync(`/proc/self/fd/${two.read}`, O_RDONLY | O_NONBLOCK)).toString(), 'moved');
  assert.throws(
    () => splice(file, file, 1),
    (error) => hasErrno(error, 'EINVAL'),
  );
});
