import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { DeadlineExceeded, Cancelled, Internal, NotFound, PermissionDenied } from '../../../src/errors.ts';
import { Busy, ZfsUnavailable } from '../../../src/zfs/errors.ts';
import { FuseDaemon } from '../../../src/zfs/fuse-daemon.ts';

/** A daemon that answers as told, since the real one cannot be made to fail so. @returns the program that names its socket */
async function daemon(t: TestContext, answer: (socket: Socket, request: Buffer) => void): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'fuse-daemon-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'zfs_socket');
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    const parts: Buffer[] = [];
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      parts.push(chunk);
      const request = Buffer.concat(parts);
      if (request.length < 32) return;
      if (request.length === 32 + request.readUInt32LE(8) + request.readUInt32LE(12)) answer(socket, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  const program = join(folder, 'zfs');
  writeFileSync(program, `\x7fELF\0other/zfs_socket\0${path}\0more\0`);
  return program;
}

function errno(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(number);
  return bytes;
}

test('a mount is one request with the two names, answered by zero, byte by byte', async (t) => {
  let seen: Buffer | undefined;
  const program = await daemon(t, (socket, request) => {
    seen = request;
    const answer = errno(0);
    socket.write(answer.subarray(0, 1));
    setTimeout(() => socket.write(answer.subarray(1)), 10);
  });
  await new FuseDaemon(program).mount('tank/a', '/mnt/ä');
  assert.equal(seen?.readInt32LE(0), 6);
  assert.deepEqual([seen.readUInt32LE(8), seen.readUInt32LE(12)], [6, Buffer.byteLength('/mnt/ä')]);
  assert.ok(seen.subarray(16, 32).every((byte) => byte === 0)); // no flags, no options
  assert.equal(seen.toString('utf8', 32), 'tank/a/mnt/ä');
});

test('what the daemon refuses has its type, the dataset and the reason', async (t) => {
  const cases = [
    [16, Busy],
    [2, NotFound],
    [1, PermissionDenied],
    [5, Internal],
    [4000, Internal],
  ] as const;
  for (const [number, kind] of cases) {
    const program = await daemon(t, (socket) => socket.write(errno(number)));
    await assert.rejects(new FuseDaemon(program).mount('tank/a', '/mnt'), (error: Error) => {
      assert.ok(error instanceof kind, `${number}: ${error.name}`);
      assert.match(error.message, /tank\/a/);
      return true;
    });
  }
});

test('silence ends at the deadline or the signal; a daemon that is not there or hangs up is unavailable', async (t) => {
  const silent = new FuseDaemon(await daemon(t, () => undefined));
  await assert.rejects(silent.mount('tank/a', '/mnt', { timeoutMs: 50 }), DeadlineExceeded);
  await assert.rejects(silent.mount('tank/a', '/mnt', { signal: AbortSignal.timeout(50) }), Cancelled);
  await assert.rejects(silent.mount('tank/a', '/mnt', { signal: AbortSignal.abort() }), Cancelled);
  const leaving = new FuseDaemon(await daemon(t, (socket) => socket.destroy()));
  await assert.rejects(leaving.mount('tank/a', '/mnt'), ZfsUnavailable);
  const folder = mkdtempSync(join(tmpdir(), 'fuse-daemon-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'zfs'), `\0${folder}/zfs_socket\0`);
  await assert.rejects(new FuseDaemon(join(folder, 'zfs')).mount('tank/a', '/mnt'), ZfsUnavailable);
});

test('the socket is that of the first program on PATH that names one: a wrapper names none', async (t) => {
  let asked = 0;
  const program = await daemon(t, (socket) => {
    asked++;
    socket.write(errno(0));
  });
  const folder = mkdtempSync(join(tmpdir(), 'fuse-daemon-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'zfs'), '#!/bin/sh\nexec /sbin/zfs "$@"\n');
  const before = process.env['PATH'];
  t.after(() => (process.env['PATH'] = before));
  process.env['PATH'] = `/nowhere:${folder}:${program.slice(0, -4)}:${before ?? ''}`;
  await new FuseDaemon('zfs').mount('tank/a', '/mnt');
  await new FuseDaemon(join(folder, 'zfs')).mount('tank/a', '/mnt');
  assert.equal(asked, 2);
});
