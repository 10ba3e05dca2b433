import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Request, Response } from '../../../src/proto/gen/ttrpc.ts';
import { Client, Code, MAX_BODY, NAMESPACE_KEY } from '../../../ttrpc/index.ts';
import { Record, TestDefinition, frameBytes, pair, rawServer, testServer } from './fixture.ts';

const nothing = { key: '', value: '' };
const closed = { code: Code.Unavailable, message: 'ttrpc: closed' };

test('calls over a unix socket are answered, and closing the server fails those in flight', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ttrpc-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'a b.sock');
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  const server = testServer().listen(listener);
  const client = await Client.connect(`unix://${path}`);
  const test = client.service(TestDefinition);
  assert.deepEqual(await test.echo({ key: 'k', value: 'v' }), { key: 'k', value: 'v' });
  const waiting = assert.rejects(test.wait(nothing), closed);
  await setTimeout(10);
  await server.close();
  await waiting;
  assert.equal(listener.listening, false);
  await assert.rejects(Client.connect(path), { code: Code.Unavailable });
  await assert.rejects(test.echo(nothing), closed);
});

test('giving up a connect is Canceled, and a signal that aborts later leaves the connection alone', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ttrpc-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 's');
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  const server = testServer().listen(listener);
  await assert.rejects(Client.connect(path, { signal: AbortSignal.abort() }), { code: Code.Canceled });
  const controller = new AbortController();
  const client = await Client.connect(path, { signal: controller.signal });
  controller.abort();
  assert.deepEqual(await client.service(TestDefinition).echo(nothing), nothing);
  client.close();
  await server.close();
});

test('stream ids are odd and increase in the order of the calls', async () => {
  const { test, peer } = rawServer();
  for (let i = 0; i < 3; i++) test.echo(nothing).catch(() => undefined);
  await peer.received(5);
  assert.deepEqual(
    peer.frames.map(({ streamId }) => streamId),
    [1, 3, 5],
  );
});

test('metadata and timeout go out with the request', async () => {
  const { test, peer } = rawServer();
  const metadata = { [NAMESPACE_KEY]: 'k8s.io', twice: ['1', '2'] };
  test.echo(nothing, { metadata, timeout: 1500 }).catch(() => undefined);
  const [frame] = await peer.received(1);
  assert.ok(frame?.kind === 'message');
  const request = Request.decode(frame.body);
  assert.equal(request.timeoutNano, 1_500_000_000n);
  assert.deepEqual(
    request.metadata.map(({ key, value }) => `${key}=${value}`),
    ['containerd-namespace-ttrpc=k8s.io', 'twice=1', 'twice=2'],
  );
  peer.stream.destroy();
});

test('metadata and deadline arrive in the context', async () => {
  const record = new Record();
  const { test } = pair({}, record);
  await test.echo(nothing, { metadata: { a: ['x', 'y'] }, timeout: 60_000 });
  const [context] = record.contexts;
  assert.deepEqual(context?.metadata.getAll('a'), ['x', 'y']);
  assert.ok(Math.abs((context.deadline ?? 0) - Date.now() - 60_000) < 5000);
  await test.echo(nothing);
  assert.equal(record.contexts[1]?.deadline, undefined);
});

test('a call whose time is over fails with DeadlineExceeded although the server says nothing', async () => {
  const { client, test } = rawServer();
  await assert.rejects(test.echo(nothing, { timeout: 20 }), { code: Code.DeadlineExceeded });
  await assert.rejects(test.echo(nothing, { timeout: 0 }), { code: Code.DeadlineExceeded });
  assert.equal(client.calls, 0);
});

test('canceling a call fails it at once and aborts the signal of its handler', async () => {
  const record = new Record();
  const { test, connection } = pair({}, record);
  const controller = new AbortController();
  const call = test.wait(nothing, { signal: controller.signal });
  await setTimeout(10);
  controller.abort();
  await assert.rejects(call, { code: Code.Canceled });
  await setTimeout(10);
  assert.equal((record.aborted[0] as { code: number }).code, Code.Canceled);
  assert.equal(connection.calls, 0);
  assert.deepEqual(await test.echo(nothing), nothing);
});

test('a call whose signal has aborted already sends nothing', async () => {
  const { test, peer } = rawServer();
  await assert.rejects(test.echo(nothing, { signal: AbortSignal.abort() }), { code: Code.Canceled });
  await setTimeout(10);
  assert.equal(peer.frames.length, 0);
});

test('a finished call leaves no listener on its signal', async () => {
  const { test } = pair();
  const { signal } = new AbortController();
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add(...args));
  signal.removeEventListener = (...args: Parameters<typeof remove>) => (listeners--, remove(...args));
  await test.echo(nothing, { signal });
  assert.equal(listeners, 0);
});

test('a request larger than a frame is refused before it is sent', async () => {
  const { test } = pair();
  await assert.rejects(test.echo({ key: '', value: 'x'.repeat(MAX_BODY) }), { code: Code.ResourceExhausted });
  assert.deepEqual(await test.echo(nothing), nothing);
});

test('an oversize response fails its call with ResourceExhausted, and others go on', async () => {
  const { test, peer } = rawServer();
  const first = assert.rejects(test.echo(nothing), { code: Code.ResourceExhausted });
  const second = test.echo(nothing);
  await peer.received(3);
  peer.stream.write(frameBytes(1, 2, 0, Buffer.alloc(MAX_BODY + 1)));
  peer.stream.write(frameBytes(3, 2, 0, Buffer.alloc(0)));
  await first;
  assert.deepEqual(await second, nothing);
});

test('malformed answers fail their call, and answers to nobody are ignored', async () => {
  const { test, peer } = rawServer();
  const calls = [1, 3, 5].map(() => assert.rejects(test.echo(nothing), { code: Code.Internal }));
  const last = test.echo(nothing);
  await peer.received(7);
  peer.stream.write(frameBytes(1, 2, 0, Buffer.from('ff', 'hex')));
  peer.stream.write(
    frameBytes(
      3,
      2,
      0,
      Response.encode(Response.fromPartial({ payload: Buffer.from('0aff', 'hex') })).finish(),
    ),
  );
  peer.stream.write(frameBytes(5, 3, 5, Buffer.alloc(0)));
  peer.stream.write(frameBytes(7, 0x85, 0, Buffer.from('a type of the future')));
  for (const id of [1, 2, 0, 99, 0xffffffff]) peer.stream.write(frameBytes(id, 2, 0, Buffer.from('late')));
  peer.stream.write(frameBytes(7, 2, 0, Buffer.alloc(0)));
  await Promise.all(calls);
  assert.deepEqual(await last, nothing);
});

test('a connection that breaks in the middle of an answer fails every call', async () => {
  const { client, test, peer } = rawServer();
  const calls = [test.echo(nothing), test.echo(nothing), test.list(nothing).next(), test.collect([])];
  const failures = calls.map((call) => assert.rejects(call, closed));
  await peer.received(7);
  peer.stream.write(Buffer.from('000000ff0000', 'hex'));
  peer.stream.end();
  await Promise.all(failures);
  assert.equal(client.closed, true);
  assert.equal(client.calls, 0);
  let told = false;
  client.onClose(() => (told = true));
  assert.equal(told, true);
});

test('closing the client fails its calls and the calls after', async () => {
  const { client, test } = pair();
  const waiting = assert.rejects(test.wait(nothing), closed);
  client.close();
  await assert.rejects(test.echo(nothing), closed);
  await waiting;
  client.close();
});
