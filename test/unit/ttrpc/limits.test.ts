import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Client, Code, MAX_BODY } from '../../../ttrpc/index.ts';
import { Channel } from '../../../ttrpc/channel.ts';
import type { ServerOptions } from '../../../ttrpc/index.ts';
import { Record, TestDefinition, frameBytes, rawClient, requestFrame, testServer } from './fixture.ts';

async function listening(t: TestContext, options?: ServerOptions, record?: Record) {
  const folder = await mkdtemp(join(tmpdir(), 'ttrpc-'));
  const path = join(folder, 's');
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  const server = testServer(options, record).listen(listener);
  t.after(async () => {
    await server.close();
    await rm(folder, { recursive: true });
  });
  const raw = () => {
    const socket: Socket = connect(path);
    socket.on('error', () => undefined);
    return socket;
  };
  return { server, path, raw };
}

test('calls beyond the bound on a connection are ResourceExhausted, and there is room again after', async () => {
  const { peer } = rawClient({ limits: { calls: 2 } });
  for (const id of [1, 3, 5]) peer.stream.write(requestFrame(id, 'Wait', { key: '40' }));
  assert.equal((await peer.answer(5)).code, Code.ResourceExhausted);
  assert.equal((await peer.answer(3)).code, 0);
  await peer.answer(1);
  peer.stream.write(requestFrame(7, 'Echo'));
  assert.equal((await peer.answer(7)).code, 0);
});

test('large requests in flight are bounded together, but one alone is always admitted', async () => {
  const { peer } = rawClient({ limits: { requestBytes: 1000 } });
  const large = { key: '40', value: 'x'.repeat(2000) };
  peer.stream.write(requestFrame(1, 'Wait', large));
  peer.stream.write(requestFrame(3, 'Wait', large));
  assert.equal((await peer.answer(3)).code, Code.ResourceExhausted);
  assert.equal((await peer.answer(1)).code, 0);
  peer.stream.write(requestFrame(5, 'Wait', large));
  assert.equal((await peer.answer(5)).code, 0);
});

test('clients that connect and say nothing do not stall others', async (t) => {
  const { server, path, raw } = await listening(t);
  const silent = Array.from({ length: 50 }, raw);
  for (const socket of silent.slice(25)) socket.write(frameBytes(1, 1, 0, Buffer.alloc(100)).subarray(0, 7));
  const client = await Client.connect(path);
  const started = performance.now();
  await client.service(TestDefinition).echo({ key: '', value: '' });
  assert.ok(performance.now() - started < 500);
  while (server.connections.size < 51) await setTimeout(5);
  for (const socket of silent) socket.destroy();
  while (server.connections.size > 1) await setTimeout(5);
  client.close();
});

test('a client that sends and never reads is not read any further, and others are served', async (t) => {
  const record = new Record();
  const { server, path, raw } = await listening(t, {}, record);
  const deaf = raw().pause();
  const value = 'v'.repeat(1000);
  let sent = 0;
  // Until the kernel's buffers are full: the server must have stopped reading long before 100 MB.
  for (let id = 1; id < 200_000; id += 2) {
    sent++;
    if (deaf.write(requestFrame(id, 'Echo', { value }))) continue;
    const drained = new Promise<boolean>((resolve) => deaf.once('drain', () => resolve(true)));
    if (!(await Promise.race([drained, setTimeout(300, false)]))) break;
  }
  assert.ok(sent < 50_000, `${String(sent)} requests were taken`);
  assert.ok(record.contexts.length <= sent);
  const [connection] = server.connections;
  assert.ok(connection && connection.stream.writableLength < 4 << 20);
  const client = await Client.connect(path);
  assert.equal((await client.service(TestDefinition).echo({ key: 'x', value: '' })).key, 'x');
  client.close();
  deaf.destroy();
  while (server.connections.size > 0) await setTimeout(5);
});

test('large answers that a client does not read are replaced by errors beyond the bound', async () => {
  const { peer, near, connection } = rawClient({ limits: { queuedBytes: 8 << 20 } });
  near.pause();
  const size = String(MAX_BODY - 100);
  const requests = Array.from({ length: 20 }, (_, i) => requestFrame(2 * i + 1, 'Big', { key: size }));
  near.write(Buffer.concat(requests));
  while (connection.calls > 0 || connection.stream.writableLength === 0) await setTimeout(5);
  await setTimeout(20);
  assert.ok(connection.stream.writableLength <= (8 << 20) + 10_000);
  near.resume();
  const codes = await Promise.all(requests.map(async (_, i) => (await peer.answer(2 * i + 1)).code));
  assert.equal(codes[0], 0);
  assert.equal(codes[19], Code.ResourceExhausted);
});

test('a response stream to a client that does not read waits for it', async () => {
  const record = new Record();
  const { near, connection } = rawClient({}, record);
  near.pause();
  near.write(requestFrame(1, 'List', { key: '1000000', value: 'v'.repeat(1000) }, { flags: 1 }));
  await setTimeout(100);
  const listed = record.listed;
  assert.ok(listed < 1000, `${String(listed)} messages`);
  assert.ok(connection.stream.writableLength < 1 << 20);
  await setTimeout(50);
  assert.equal(record.listed, listed);
  connection.close();
  while (!record.listEnded) await setTimeout(5);
});

test('what is sent to a connection that has ended is not gathered for ever', async () => {
  const [near, far] = duplexPair();
  far.pause();
  const events = { onFrame: () => undefined, onClose: () => undefined };
  const channel = new Channel(near, events, { readOnlyWhileWritable: true });
  channel.send(new Uint8Array(1 << 20));
  channel.end();
  const { queued } = channel;
  for (let i = 0; i < 100; i++) channel.send(new Uint8Array(1000));
  await setTimeout(10);
  assert.equal(channel.queued, queued);
  near.destroy();
});
