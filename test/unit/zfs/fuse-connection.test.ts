import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectTo } from '../../../src/zfs/fuse-connection.ts';

/** A server that accepts nothing, with as many connections in its queue as fit there. */
async function full(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'stasis-full-'));
  const path = join(folder, 'socket');
  const program = `require('net').createServer((socket) => socket.on('error', () => {}).end('here')).listen({ path: process.argv[1], backlog: 1 }, () => console.log('listens'))`;
  const server = spawn(process.execPath, ['-e', program, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const open: Socket[] = [];
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });
  await once(server.stdout, 'data');
  server.kill('SIGSTOP');
  const connect = async (signal: AbortSignal): Promise<Socket> => {
    const { socket } = await connectTo(path, signal);
    socket.on('error', () => undefined);
    open.push(socket);
    return socket;
  };
  const isFull = async (): Promise<boolean> =>
    connect(AbortSignal.timeout(100)).then(
      () => false,
      () => true,
    );
  while (!(await isFull()));
  assert.ok(open.length > 0);
  return { connect, goOn: () => server.kill('SIGCONT') };
}

test('a full queue is waited for', async (t) => {
  const { connect, goOn } = await full(t);
  const connected = connect(AbortSignal.timeout(20_000));
  let early = false;
  void connected.then(() => (early = true));
  await sleep(50);
  assert.equal(early, false);
  goOn();
  const [answer] = (await once(await connected, 'data')) as [Buffer];
  assert.equal(String(answer), 'here');
});

test('no longer than the caller wants', async (t) => {
  const { connect } = await full(t);
  await assert.rejects(connect(AbortSignal.abort(new Error('enough'))), /enough/);
  const end = new AbortController();
  const waiting = connect(end.signal);
  await sleep(20);
  end.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
});

test('a daemon that is not there is no full queue', async () => {
  await assert.rejects(connectTo('/nonexistent/socket', AbortSignal.timeout(5000)), { code: 'ENOENT' });
});
