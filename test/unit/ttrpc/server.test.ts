import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Client, Code, MAX_BODY, StatusError } from '../../../ttrpc/index.ts';
import {
  Record,
  TestDefinition,
  closedEvent,
  frameBytes,
  handlers,
  pair,
  rawClient,
  requestFrame,
  testServer,
} from './fixture.ts';

test('a call is answered on its stream', async () => {
  const { peer } = rawClient();
  peer.stream.write(requestFrame(1, 'Echo', { key: 'k', value: 'v' }));
  assert.deepEqual(await peer.answer(1), { code: 0, message: '', echoed: { key: 'k', value: 'v' } });
});

test('an unknown service or method is Unimplemented, and the connection goes on', async () => {
  const { peer } = rawClient();
  peer.stream.write(requestFrame(1, 'Echo', {}, { service: 'no.Such' }));
  peer.stream.write(requestFrame(3, 'NoSuch'));
  peer.stream.write(requestFrame(5, '__proto__'));
  peer.stream.write(requestFrame(7, 'Echo', { key: 'still here' }));
  assert.deepEqual((await peer.answer(1)).code, Code.Unimplemented);
  assert.deepEqual((await peer.answer(1)).message, 'service no.Such');
  assert.deepEqual((await peer.answer(3)).message, 'method NoSuch');
  assert.deepEqual((await peer.answer(5)).code, Code.Unimplemented);
  assert.equal((await peer.answer(7)).echoed.key, 'still here');
});

test('an even stream id is InvalidArgument on that stream', async () => {
  const { peer } = rawClient();
  for (const id of [0, 2, 0xfffffffe]) {
    peer.stream.write(requestFrame(id, 'Echo'));
    assert.equal((await peer.answer(id)).code, Code.InvalidArgument);
  }
  peer.stream.write(requestFrame(1, 'Echo', { key: 'ok' }));
  assert.equal((await peer.answer(1)).echoed.key, 'ok');
});

test('a stream id that was used or is lower than the last is InvalidArgument, and starts no handler', async () => {
  const record = new Record();
  const { peer } = rawClient({}, record);
  peer.stream.write(requestFrame(5, 'Echo'));
  await peer.answer(5);
  peer.stream.write(Buffer.concat([requestFrame(5, 'Echo'), requestFrame(3, 'Echo')]));
  assert.equal((await peer.answer(3)).code, Code.InvalidArgument);
  assert.equal((await peer.received(5, 2)).length, 2);
  assert.equal(record.contexts.length, 1);
});

test('an oversize request is ResourceExhausted on its stream, and others are unharmed', async () => {
  const { peer } = rawClient();
  peer.stream.write(requestFrame(1, 'Wait', { key: '50' }));
  peer.stream.write(frameBytes(3, 1, 0, Buffer.alloc(MAX_BODY + 1)));
  peer.stream.write(requestFrame(5, 'Echo', { key: 'after' }));
  const { code, message } = await peer.answer(3);
  assert.equal(code, Code.ResourceExhausted);
  assert.equal(message, 'message length 4194305 exceed maximum message size of 4194304');
  assert.equal((await peer.answer(5)).echoed.key, 'after');
  assert.equal((await peer.answer(1)).echoed.key, '50');
});

test('frames of unknown type are ignored, whatever their stream and size', async () => {
  const { peer } = rawClient();
  for (const type of [0, 2, 4, 0x7f, 0xff]) {
    peer.stream.write(frameBytes(1, type, 0xff, Buffer.from('?')));
    peer.stream.write(frameBytes(2, type, 0, Buffer.alloc(MAX_BODY + 1)));
  }
  peer.stream.write(requestFrame(1, 'Echo', { key: 'ok' }));
  assert.equal((await peer.answer(1)).echoed.key, 'ok');
  assert.equal(peer.frames.length, 1);
});

test('a request that is no protobuf is InvalidArgument', async () => {
  const { peer } = rawClient();
  peer.stream.write(frameBytes(1, 1, 0, Buffer.from([0xff, 0xff])));
  peer.stream.write(requestFrame(3, 'Echo', {}, { payload: Buffer.from('0aff', 'hex') }));
  assert.equal((await peer.answer(1)).code, Code.InvalidArgument);
  assert.equal((await peer.answer(3)).code, Code.Internal);
});

test('data on a stream that is not open, or on a unary one, is InvalidArgument', async () => {
  const { peer, connection } = rawClient();
  peer.stream.write(frameBytes(9, 3, 0, Buffer.from('x')));
  assert.equal((await peer.answer(9)).message, 'StreamID is no longer active');
  peer.stream.write(requestFrame(11, 'Wait'));
  peer.stream.write(frameBytes(11, 3, 0, Buffer.from('x')));
  assert.equal((await peer.answer(11)).code, Code.InvalidArgument);
  assert.equal(connection.calls, 0);
});

test('an error keeps its code, a plain Error is Unknown, and its message arrives', async () => {
  const { test } = pair();
  await assert.rejects(test.fail({ key: '5', value: 'no such task' }), {
    name: 'StatusError',
    code: Code.NotFound,
    message: 'no such task',
  });
  await assert.rejects(test.fail({ key: '', value: 'plain' }), { code: Code.Unknown, message: 'plain' });
});

test('a handler that throws at once, or returns what cannot be encoded, does not take the process down', async () => {
  const { server, client } = pair();
  const broken = {
    ...handlers(),
    echo: () => {
      throw new Error('at once');
    },
    fail: () => Promise.resolve(undefined as unknown as { key: string; value: string }),
    list: () => undefined as unknown as AsyncIterable<{ key: string; value: string }>,
  };
  server.register(TestDefinition, broken, { fullName: 'broken' });
  const test = client.service(TestDefinition, { fullName: 'broken' });
  await assert.rejects(test.echo({ key: '', value: '' }), { code: Code.Unknown, message: 'at once' });
  await assert.rejects(test.fail({ key: '', value: '' }), { code: Code.Internal });
  await assert.rejects(test.list({ key: '', value: '' }).next(), { code: Code.Unknown });
  assert.equal((await test.big({ key: '3', value: '' })).value, 'xxx');
});

test('a response larger than a frame is ResourceExhausted to its caller', async () => {
  const { test } = pair();
  await assert.rejects(test.big({ key: String(MAX_BODY + 1), value: '' }), { code: Code.ResourceExhausted });
  assert.equal((await test.big({ key: String(MAX_BODY - 20), value: '' })).value.length, MAX_BODY - 20);
});

test('one definition serves two names, and a handler sees which was called', async () => {
  const record = new Record();
  const { server, client } = pair({}, record);
  server.register(TestDefinition, handlers(record), { fullName: 'stasis.test.v2.Test' });
  await client.service(TestDefinition).echo({ key: '', value: '' });
  await client.service(TestDefinition, { fullName: 'stasis.test.v2.Test' }).echo({ key: '', value: '' });
  assert.deepEqual(
    record.contexts.map(({ service, method }) => [service, method]),
    [
      ['stasis.test.v1.Test', 'Echo'],
      ['stasis.test.v2.Test', 'Echo'],
    ],
  );
  assert.throws(() => server.register(TestDefinition, handlers()), /registered already/);
});

test('handlers that are methods of a class keep their this', async () => {
  class Service {
    #prefix = 'hello ';
    async echo({ key, value }: { key: string; value: string }) {
      return { key: this.#prefix + key, value };
    }
  }
  const { server, client } = pair();
  const definition = {
    name: 'One',
    fullName: 'one.One',
    methods: { echo: TestDefinition.methods.echo },
  } as const;
  server.register(definition, new Service());
  assert.equal((await client.service(definition).echo({ key: 'you', value: '' })).key, 'hello you');
});

test('unary calls run concurrently and answer as they finish', async () => {
  const { test } = pair();
  const order: string[] = [];
  const call = async (key: string) => order.push((await test.wait({ key, value: '' })).key);
  await Promise.all([call('60'), call('20'), call('40')]);
  assert.deepEqual(order, ['20', '40', '60']);
});

test('the timeout of a request aborts the signal, one that has passed already at once', async () => {
  const record = new Record();
  const { peer } = rawClient({}, record);
  peer.stream.write(requestFrame(1, 'Wait', {}, { timeoutNano: 30_000_000n }));
  peer.stream.write(requestFrame(3, 'Wait', { key: '30' }, { timeoutNano: 2n ** 62n }));
  assert.equal((await peer.answer(1)).code, Code.DeadlineExceeded);
  assert.ok(Math.abs((record.contexts[0]?.deadline ?? 0) - Date.now()) < 1000);
  assert.equal((await peer.answer(3)).code, 0);
  peer.stream.write(requestFrame(5, 'Echo', {}, { timeoutNano: -1n }));
  await peer.answer(5);
});

test('an AbortError that comes of the signal is told as what aborted it', async () => {
  const { server, client } = pair();
  const sleeper = { echo: (_: unknown, context: { signal: AbortSignal }) => sleep(context.signal) };
  const sleep = async (signal: AbortSignal) => setTimeout(5000, { key: '', value: '' }, { signal });
  const definition = {
    name: 'One',
    fullName: 'one.One',
    methods: { echo: TestDefinition.methods.echo },
  } as const;
  server.register(definition, sleeper);
  const { peer, server: other } = rawClient();
  other.register(definition, sleeper);
  peer.stream.write(requestFrame(1, 'Echo', {}, { service: 'one.One', timeoutNano: 20_000_000n }));
  assert.equal((await peer.answer(1)).code, Code.DeadlineExceeded);
  client.close();
});

test('a closed connection aborts its calls, tells its listeners and is no longer counted', async () => {
  const record = new Record();
  const { server, connection, peer } = rawClient({}, record);
  peer.stream.write(requestFrame(1, 'Wait'));
  peer.stream.write(requestFrame(3, 'Echo'));
  await peer.answer(3);
  assert.equal(server.connections.size, 1);
  assert.equal(record.contexts[0]?.connection, connection);
  const closed = Promise.withResolvers<void>();
  connection.onClose(() => {
    throw new Error('a listener that throws');
  });
  connection.onClose(closed.resolve);
  peer.stream.destroy();
  await closed.promise;
  assert.equal(server.connections.size, 0);
  assert.equal(connection.calls, 0);
  const [reason] = record.aborted;
  assert.ok(reason instanceof StatusError && reason.code === Code.Unavailable);
  let late = false;
  connection.onClose(() => (late = true));
  assert.equal(late, true);
});

test('a connection that was dead when it was accepted does not stay counted', async () => {
  const { near, far } = pair();
  far.destroy();
  await closedEvent(far);
  const server = testServer();
  const connection = server.accept(far);
  await new Promise<void>((resolve) => connection.onClose(resolve));
  assert.equal(server.connections.size, 0);
  near.destroy();
});

test('shutdown lets a call finish, refuses new ones and closes idle connections', async () => {
  const { server, peer } = rawClient();
  const idle = rawClient();
  server.accept(idle.near); // any stream will do
  peer.stream.write(requestFrame(1, 'Wait', { key: '60' }));
  await setTimeout(10);
  const done = server.shutdown();
  peer.stream.write(requestFrame(3, 'Echo'));
  assert.equal((await peer.answer(3)).code, Code.Unavailable);
  assert.equal((await peer.answer(1)).echoed.key, '60');
  await done;
  assert.equal(server.connections.size, 0);
});

test('shutdown drops calls that do not finish in time, and close does not wait at all', async () => {
  const record = new Record();
  const { server, peer } = rawClient({}, record);
  peer.stream.write(requestFrame(1, 'Wait'));
  await setTimeout(10);
  const started = performance.now();
  await server.shutdown({ timeout: 50 });
  assert.ok(performance.now() - started < 1000);
  assert.equal(record.aborted.length, 1);
  const second = rawClient({}, record);
  second.peer.stream.write(requestFrame(1, 'Wait'));
  await setTimeout(10);
  await second.server.close();
  assert.equal(record.aborted.length, 2);
  const [, far] = [second.near, rawClient().near];
  const refused = second.server.accept(far);
  await once(far, 'close');
  assert.equal(refused.closed, true);
});

test('a handler may shut its own server down, and its answer still arrives', async () => {
  const { server, client } = pair();
  const definition = {
    name: 'One',
    fullName: 'one.One',
    methods: { echo: TestDefinition.methods.echo },
  } as const;
  const done = Promise.withResolvers<void>();
  server.register(definition, {
    echo: async (request) => {
      server.shutdown().then(done.resolve, done.reject);
      return request;
    },
  });
  assert.equal((await client.service(definition).echo({ key: 'bye', value: '' })).key, 'bye');
  await done.promise;
  assert.ok(client instanceof Client);
});
