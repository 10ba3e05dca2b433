// What system calls do on failure, and that they do anything else.
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { hasErrno, InvalidArgument } from '../../../src/errors.ts';
import { sendDatagram } from '../../../src/sys/datagram.ts';
import { pipe } from '../../../src/sys/descriptor.ts';
import { peerCredentials } from '../../../src/sys/peer.ts';
import { isSameFile, openPid, takeDescriptor, withPidFd } from '../../../src/sys/pidfd.ts';
import { socketProtocol } from '../../../src/sys/socket-protocol.ts';
import { memoryFile, spawnProgram, type SpawnOptions } from '../../../src/sys/spawn.ts';
import { ThreadRoot } from '../../../src/sys/thread-root.ts';
import { bytesWaiting } from '../../../src/sys/waiting.ts';

const fails = (errno: string) => (error: unknown) => hasErrno(error, errno);
/** No process has it: the kernel's are below 2^22. */
const NOBODY = 2 ** 22 + 1;

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'sys-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** A unix socket's both ends. */
async function connected(t: TestContext): Promise<{ client: Socket; server: Socket }> {
  const path = join(folder(t), 'socket');
  const listener = createServer();
  const accepted = new Promise<Socket>((resolve) => listener.once('connection', resolve));
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  const client = connect(path);
  const server = await accepted;
  t.after(() => {
    client.destroy();
    server.destroy();
    listener.close();
  });
  return { client, server };
}

test('a datagram to nobody says so, and an impossible name is refused', (t) => {
  assert.throws(() => sendDatagram(join(folder(t), 'none'), 'x'), fails('ENOENT'));
  assert.throws(() => sendDatagram(`@stasis-test-${process.pid}-none`, 'x'), fails('ECONNREFUSED'));
  assert.throws(() => sendDatagram(`/${'x'.repeat(200)}`, 'x'), InvalidArgument);
  assert.throws(() => sendDatagram('', 'x'), InvalidArgument);
});

test('the peer of a unix socket is known until it is closed', async (t) => {
  const { server } = await connected(t);
  const { pid } = process;
  assert.deepEqual(peerCredentials(server), { pid, uid: process.getuid?.(), gid: process.getgid?.() });
  server.destroy();
  assert.equal(peerCredentials(server), undefined);
});

test('a descriptor of another process is taken by its number, if it is open there', () => {
  const { read, write } = pipe();
  const taken = withPidFd(process.pid, (pidFd) => takeDescriptor(pidFd, write));
  assert.ok(isSameFile(taken, process.pid, write));
  assert.ok(!isSameFile(taken, process.pid, read));
  writeSync(taken, 'through it');
  const buffer = Buffer.alloc(20);
  assert.equal(buffer.toString('utf8', 0, readSync(read, buffer)), 'through it');
  assert.throws(() => withPidFd(process.pid, (pidFd) => takeDescriptor(pidFd, 9999)), fails('EBADF'));
  assert.throws(() => openPid(NOBODY), fails('ESRCH'));
  for (const fd of [read, write, taken]) closeSync(fd);
});

test('the protocol of what is no socket is none', async (t) => {
  const { client } = await connected(t);
  const { fd } = (client as unknown as { _handle: { fd: number } })._handle;
  assert.match(socketProtocol(`/proc/self/fd/${fd}`) ?? '', /^UNIX/);
  assert.equal(socketProtocol('/proc/self/exe'), undefined);
  assert.equal(socketProtocol('/proc/self/fd/9999'), undefined);
});

test('bytes that wait in a pipe are counted, and a closed one is an error', () => {
  const { read, write } = pipe();
  assert.equal(bytesWaiting(read), 0);
  writeSync(write, 'twelve bytes');
  assert.equal(bytesWaiting(read), 12);
  closeSync(read);
  closeSync(write);
  assert.throws(() => bytesWaiting(9999), fails('EBADF'));
});

test('a program that cannot be started says why', (t) => {
  const cwd = folder(t);
  const options: SpawnOptions = { cwd, env: [], stdio: ['ignore', 'ignore', 'ignore'] };
  const file = (name: string, mode: number, text = ''): string => {
    writeFileSync(join(cwd, name), text, { mode });
    return join(cwd, name);
  };
  assert.throws(() => spawnProgram(join(cwd, 'none'), [], options), fails('ENOENT'));
  assert.throws(() => spawnProgram(file('locked', 0o600), [], options), fails('EACCES'));
  assert.throws(() => spawnProgram(file('nonsense', 0o700, 'no program\n'), [], options), fails('ENOEXEC'));
  assert.throws(() => spawnProgram('/bin/true', [], { ...options, cwd: join(cwd, 'gone') }), fails('ENOENT'));
  assert.throws(
    () => spawnProgram('/bin/true', [], { ...options, stdio: ['ignore', 9999, 'ignore'] }),
    fails('EBADF'),
  );
});

test('a file in memory has no name, and holds what is written', () => {
  const fd = memoryFile('stasis-test');
  writeSync(fd, 'kept');
  const buffer = Buffer.alloc(10);
  assert.equal(readSync(fd, buffer, 0, 10, 0), 4);
  assert.throws(() => openSync('stasis-test', 'r'), fails('ENOENT'));
  closeSync(fd);
  assert.throws(() => memoryFile('x'.repeat(300)), fails('EINVAL'));
});

test('the main thread, with which all others share their root, cannot leave it', () => {
  assert.throws(() => new ThreadRoot(), /main thread/);
});
