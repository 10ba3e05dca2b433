import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readlinkSync,
  readSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { directStart } from '../../../src/oci/direct-start.ts';
import { makeFifo } from '../../../src/sys/fifo.ts';
import { findSleeper, findStopped } from '../../../src/sys/wait-channel.ts';

const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
const never = new AbortController().signal;
/** Some process that runs. */
const running = { pid: process.ppid, ended: never };
let folder: string;
let fifo: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'stasis-start-'));
  fifo = join(folder, 'exec.fifo');
  makeFifo(fifo, 0o600);
});

afterEach(() => rmSync(folder, { recursive: true }));

suite('a container of runc', () => {
  test('has been started when it is the container’s program: its end of the FIFO is closed then', async () => {
    const starting = directStart('runc', folder, running);
    const writer = openSync(fifo, O_WRONLY | O_NONBLOCK);
    writeSync(writer, '0');
    const first = await Promise.race([starting, sleep(50, 'not yet')]);
    assert.equal(first, 'not yet');
    closeSync(writer);
    assert.equal(await starting, true);
  });

  for (const when of ['waits already', 'comes later'] as const) {
    test(`that ${when} goes on; then it is no longer a created one`, async () => {
      const child = spawn('sh', ['-c', 'printf 0 >"$1"', 'sh', fifo]);
      const exited = once(child, 'exit');
      const { pid = 0 } = child;
      while (when === 'waits already' && findSleeper([pid], /fifo|partner/) === undefined) await sleep(1);
      assert.equal(await directStart('runc', folder, running), true);
      assert.equal(existsSync(fifo), false);
      assert.deepEqual(await exited, [0, null]);
    });
  }

  test('that met a reader which was killed goes on, as another process has the FIFO open too; the next start finds its byte', async () => {
    const openFifo = (path: string, flags: number) => {
      const others = openSync(path, flags);
      return Promise.resolve({ fd: openSync(path, flags), letGo: () => closeSync(others) });
    };
    const { fd, letGo } = await openFifo(fifo, O_RDONLY | O_NONBLOCK);
    const writer = openSync(fifo, O_WRONLY);
    closeSync(fd);
    writeSync(writer, '0');
    closeSync(writer);
    assert.equal(await directStart('runc', folder, { ...running, openFifo }), true);
    letGo();
  });

  test('that has ended while the FIFO was opened is noticed', async () => {
    const gone = new AbortController();
    const openFifo = async (path: string, flags: number) => {
      const fd = openSync(path, flags);
      await sleep(5);
      return { fd, letGo: () => undefined };
    };
    const starting = directStart('runc', folder, { pid: process.ppid, ended: gone.signal, openFifo });
    gone.abort();
    assert.equal(await starting, false);
  });

  test('that has ended before it came there is not started, and stays a created one', async () => {
    const gone = new AbortController();
    const starting = directStart('runc', folder, { pid: process.ppid, ended: gone.signal });
    gone.abort();
    assert.equal(await starting, false);
    assert.ok(existsSync(fifo));
    assert.equal(await directStart('runc', folder, { pid: process.ppid, ended: gone.signal }), false);
  });

  test('that goes on and ends at once has been started', async () => {
    const gone = new AbortController();
    const starting = directStart('runc', folder, { pid: process.ppid, ended: gone.signal });
    const writer = openSync(fifo, O_WRONLY | O_NONBLOCK);
    writeSync(writer, '0');
    closeSync(writer);
    gone.abort();
    assert.equal(await starting, true);
    assert.equal(existsSync(fifo), false);
  });

  test('that closes the FIFO without a byte is not started', async () => {
    const starting = directStart('runc', folder, running);
    closeSync(openSync(fifo, O_WRONLY | O_NONBLOCK));
    assert.equal(await starting, false);
    assert.ok(existsSync(fifo));
  });
});

suite('a container of crun', () => {
  test('gets a byte, and is no longer a created one', async () => {
    const reader = openSync(fifo, O_RDONLY | O_NONBLOCK);
    assert.equal(await directStart('crun', folder, running), true);
    assert.equal(readSync(reader, Buffer.alloc(8)), 1);
    closeSync(reader);
    assert.equal(existsSync(fifo), false);
  });

  test('has been started when it is the container’s program', async () => {
    const reader = openSync(fifo, O_RDONLY | O_NONBLOCK);
    const child = spawn('sh', ['-c', 'read -r _; exec sleep 60'], { stdio: ['pipe', 'ignore', 'ignore'] });
    const exited = once(child, 'exit');
    const { pid = 0 } = child;
    while (!readlinkSync(`/proc/${pid}/exe`).endsWith('sh')) await sleep(1);
    const shell = readlinkSync(`/proc/${pid}/exe`);
    const starting = directStart('crun', folder, { pid, ended: never });
    const first = await Promise.race([starting, sleep(50, 'not yet')]);
    assert.equal(first, 'not yet');
    child.stdin.write('\n');
    assert.equal(await starting, true);
    assert.notEqual(readlinkSync(`/proc/${pid}/exe`), shell);
    child.kill('SIGKILL');
    await exited;
    closeSync(reader);
  });

  test('whose process is gone is not started, and stays a created one', async () => {
    assert.equal(await directStart('crun', folder, running), false);
    assert.ok(existsSync(fifo));
  });
});

test('a process that stands still is left to the runtime, and so is one that is not there', async () => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  const { pid = 0 } = child;
  child.kill('SIGSTOP');
  while (findStopped([pid]) === undefined) await sleep(1);
  for (const runtime of ['runc', 'crun'] as const)
    assert.equal(await directStart(runtime, folder, { pid, ended: never }), false);
  child.kill('SIGKILL');
  await exited;
  assert.equal(await directStart('runc', folder, { pid, ended: never }), false);
  assert.ok(existsSync(fifo));
});

test('what is no created container is left to the runtime', async () => {
  unlinkSync(fifo);
  assert.equal(await directStart('runc', folder, running), false);
  writeFileSync(fifo, '');
  assert.equal(await directStart('runc', folder, running), false);
  assert.equal(await directStart('crun', join(folder, 'none'), running), false);
});
