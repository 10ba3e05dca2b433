import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { hasErrno } from '../../../src/errors.ts';
import { wallTime } from '../../../src/sys/clock.ts';
import { closeQuietly, enlargePipe, pipe, replaceDescriptor } from '../../../src/sys/descriptor.ts';
import { tryLock } from '../../../src/sys/lock.ts';
import { mount, mountArguments, shortenOverlay, unmount } from '../../../src/sys/mount.ts';
import { receiveDescriptor } from '../../../src/sys/scm-rights.ts';
import { createCoreSchedulingCookie } from '../../../src/sys/process.ts';
import { setWindowSize } from '../../../src/sys/terminal.ts';
import { reap } from '../../../src/sys/wait.ts';

const fails = (errno: string) => (error: unknown) => hasErrno(error, errno);

test('a pipe passes bytes, also when enlarged or refused to be', () => {
  const { read, write } = pipe();
  enlargePipe(read, 256 * 1024);
  enlargePipe(read, 2 ** 30); // refused, and no error
  const bytes = Buffer.alloc(200_000, 1);
  assert.equal(writeSync(write, bytes), bytes.length, 'a pipe of 64 KiB would have blocked');
  assert.equal(readSync(read, Buffer.alloc(10)), 10);
  closeSync(read);
  closeSync(write);
});

test('closing twice is quiet', () => {
  const { read, write } = pipe();
  closeQuietly(read);
  closeQuietly(read);
  closeQuietly(write);
});

test('dup2 of a closed descriptor says EBADF', () => {
  assert.throws(() => replaceDescriptor(9999, 9998), fails('EBADF'));
});

test('a lock is held by one, and free again when its descriptor is closed', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'lock-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const open = (): number => openSync(join(folder, 'lock'), 'a');
  const [first, second] = [open(), open()];
  assert.equal(tryLock(first), true);
  assert.equal(tryLock(second), false);
  closeSync(first);
  assert.equal(tryLock(second), true);
  closeSync(second);
  assert.throws(() => tryLock(second), fails('EBADF'));
});

test('the time is that of the day, finer than a millisecond', () => {
  const { seconds, nanos } = wallTime();
  assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 2);
  const fine = Array.from({ length: 20 }, () => wallTime().nanos % 1_000_000);
  assert.ok(nanos < 1e9 && fine.some((part) => part !== 0));
});

test('reaping what is no child of ours says ECHILD', () => {
  assert.throws(() => reap(1), fails('ECHILD'));
});

test('core scheduling is there, or the kernel says that it is not', () => {
  try {
    createCoreSchedulingCookie();
  } catch (error) {
    assert.match(String(error), /PR_SCHED_CORE: E(INVAL|NODEV)/);
  }
});

test('leaving the session as the leader of one says EPERM', async () => {
  const program = join(import.meta.dirname, '../../../src/sys/process.ts');
  const script = `import { leaveSession } from ${JSON.stringify(program)}; leaveSession();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    detached: true, // a session of its own
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  assert.notEqual(status, 0);
  assert.match(said, /setsid.*EPERM/);
});

test('a window size of what is no terminal says ENOTTY', () => {
  const fd = openSync('/dev/null', 'r');
  assert.throws(() => setWindowSize(fd, 80, 24), fails('ENOTTY'));
  closeSync(fd);
});

test('receiving from what is no socket says ENOTSOCK', () => {
  const fd = openSync('/dev/null', 'r');
  assert.throws(() => receiveDescriptor(fd), fails('ENOTSOCK'));
  closeSync(fd);
});

test('mount options are sorted, later ones win', () => {
  assert.deepEqual(mountArguments(['rbind', 'ro']), { flags: 4096 | 16384 | 1, propagation: 0, data: '' });
  assert.deepEqual(mountArguments(['ro', 'rw', 'nosuid', 'suid']), { flags: 0, propagation: 0, data: '' });
  assert.deepEqual(mountArguments(['lowerdir=/a:/b', 'noexec', 'index=off']), {
    flags: 8,
    propagation: 0,
    data: 'lowerdir=/a:/b,index=off',
  });
  assert.deepEqual(mountArguments(['rprivate']), { flags: 0, propagation: (1 << 18) | 16384, data: '' });
  assert.throws(() => mountArguments(['X-containerd.mkdir.path=/x']), /X-containerd/);
});

test('id mappings are refused, as a bind would drop them', () => {
  assert.throws(() => mountArguments(['bind', 'uidmap=0:1000:1']), /uidmap=0:1000:1 cannot be performed/);
});

test('lower folders become relative to the one that holds them all, and nothing else changes', () => {
  assert.deepEqual(
    shortenOverlay('index=off,lowerdir=/s/10/fs:/s/1/fs:/s/12/fs,upperdir=/s/3/fs,workdir=/s/3/work'),
    {
      folder: '/s',
      data: 'index=off,lowerdir=10/fs:1/fs:12/fs,upperdir=/s/3/fs,workdir=/s/3/work',
    },
  );
  assert.deepEqual(shortenOverlay('lowerdir=/s/1/fs'), { folder: '/s/1', data: 'lowerdir=fs' });
  assert.equal(shortenOverlay('lowerdir=/a/fs:/b/fs'), undefined);
  assert.equal(shortenOverlay('lowerdir=/s/with\\:colon:/s/b'), undefined);
});

test('a mount that cannot be made says why, and what', async () => {
  const entry = { type: 'bind', source: '/nonexistent', target: '/nowhere', options: ['rbind'] };
  // EPERM without privileges, where the kernel does not even look.
  await assert.rejects(
    mount(entry),
    (error: Error) =>
      /\/nonexistent \(bind\) on \/nowhere/.test(error.message) && /ENOENT|EPERM/.test(error.message),
  );
  await assert.rejects(unmount('/nonexistent'), (error) => fails('ENOENT')(error) || fails('EPERM')(error));
});
