import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { KeyValue, Response } from '../../../src/proto/gen/ttrpc.ts';
import { Code, FrameType } from '../../../ttrpc/index.ts';
import { Record, TestDefinition, frameBytes, pair, rawClient, rawServer, requestFrame } from './fixture.ts';
import { slowness } from '../../system/support/slowness.ts';

const nothing = { key: '', value: '' };
const message = (key: string) => Buffer.from(KeyValue.encode({ key, value: '' }).finish());

async function* keys(...all: string[]) {
  for (const key of all) yield { key, value: '' };
}

async function all<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const got: T[] = [];
  for await (const one of messages) got.push(one);
  return got;
}

test('a response stream arrives whole, in order, and ends', async () => {
  const { test, client } = pair();
  const got = await all(test.list({ key: '10000', value: 'v' }));
  assert.equal(got.length, 10_000);
  assert.ok(got.every(({ key }, i) => key === String(i)));
  assert.deepEqual(await all(test.list({ key: '0', value: '' })), []);
  assert.equal(client.calls, 0);
});

test('an error after some messages comes after them', async () => {
  const { test } = pair();
  const stream = test.list({ key: '2', value: 'fail' });
  assert.equal((await stream.next()).done, false);
  assert.equal((await stream.next()).done, false);
  await assert.rejects(stream.next(), { code: Code.NotFound, message: 'no more' });
  assert.equal((await stream.next()).done, true);
});

test('leaving a response stream early ends its handler', async () => {
  const record = new Record();
  const { test, connection, client } = pair({}, record);
  for await (const { key } of test.list({ key: '1000000000', value: 'v'.repeat(1000) }))
    if (key === '5') break;
  while (!record.listEnded) await setTimeout(5);
  assert.equal(connection.calls, 0);
  assert.equal(client.calls, 0);
  assert.deepEqual(await test.echo(nothing), nothing);
});

test('a request stream is collected and answered, from generators and from arrays', async () => {
  const { test } = pair();
  assert.deepEqual(await test.collect(keys('a', 'b')), { key: '2', value: 'a,b' });
  assert.deepEqual(await test.collect([{ key: 'c', value: '' }]), { key: '1', value: 'c' });
  assert.deepEqual(await test.collect([]), { key: '0', value: '' });
  assert.equal((await test.collect(keys(...Array.from({ length: 5000 }, String)))).key, '5000');
});

test('a handler that stops reading its requests ends the sender', async () => {
  const { test, client } = pair();
  let returned = false;
  async function* endless() {
    try {
      for (let i = 0; ; i++) {
        yield { key: i < 3 ? 'x' : 'stop', value: '' };
        await setTimeout(1);
      }
    } finally {
      returned = true;
    }
  }
  assert.equal((await test.collect(endless())).key, '3');
  while (!returned) await setTimeout(5);
  assert.equal(client.calls, 0);
});

test('requests that throw fail the call with their error and cancel it', async () => {
  const { test, connection } = pair();
  async function* broken() {
    yield nothing;
    throw new Error('source broke');
  }
  await assert.rejects(test.collect(broken()), { code: Code.Unknown, message: 'source broke' });
  assert.deepEqual(await test.echo(nothing), nothing);
  while (connection.calls > 0) await setTimeout(5);
});

test('a handler that waits for requests ends when its call is canceled, timed out or cut off', async () => {
  const { test, connection, peer } = { ...pair(), ...rawClient() };
  peer.stream.write(requestFrame(1, 'Collect', {}, { flags: 2, timeoutNano: 20_000_000n }));
  assert.equal((await peer.answer(1)).code, Code.DeadlineExceeded);
  peer.stream.write(requestFrame(3, 'Collect', {}, { flags: 2, timeoutNano: -1n }));
  assert.equal((await peer.answer(3)).code, Code.DeadlineExceeded);
  peer.stream.write(requestFrame(5, 'Collect', {}, { flags: 2 }));
  peer.stream.write(frameBytes(5, FrameType.Cancel, 0, Buffer.alloc(0)));
  assert.equal((await peer.answer(5)).code, Code.Canceled);
  assert.equal(connection.calls, 0);
  let left = false;
  async function* watched(requests: AsyncIterable<KeyValue>) {
    try {
      yield* requests;
    } finally {
      left = true;
    }
  }
  const other = rawClient();
  const definition = {
    name: 'One',
    fullName: 'one.One',
    methods: { chat: TestDefinition.methods.chat },
  } as const;
  other.server.register(definition, { chat: watched });
  other.peer.stream.write(requestFrame(1, 'Chat', { key: 'x' }, { flags: 2, service: 'one.One' }));
  await other.peer.received(1);
  other.connection.close();
  while (!left) await setTimeout(5);
  assert.deepEqual(await test.echo(nothing), nothing);
});

test('both directions stream at once, each message answered before the next is sent', async () => {
  const { test } = pair();
  const turns: string[] = [];
  let answered = Promise.withResolvers<void>();
  async function* requests() {
    for (const key of ['a', 'b', 'c']) {
      turns.push(`> ${key}`);
      yield { key, value: '' };
      await answered.promise;
      answered = Promise.withResolvers();
    }
  }
  for await (const { value } of test.chat(requests())) {
    turns.push(`< ${value}`);
    answered.resolve();
  }
  assert.deepEqual(turns, ['> a', '< a', '> b', '< b', '> c', '< c']);
});

test('timeout and cancellation end streams too', async () => {
  const { test } = pair();
  async function* never() {
    await setTimeout(10_000, undefined, { ref: false });
    yield nothing;
  }
  await assert.rejects(test.collect(never(), { timeout: 20 }), { code: Code.DeadlineExceeded });
  const controller = new AbortController();
  const stream = test.chat(never(), { signal: controller.signal });
  const next = assert.rejects(stream.next(), { code: Code.Canceled });
  controller.abort();
  await next;
});

test('the first message of a stream may come in the request, as the Go library sends it', async () => {
  const { peer } = rawClient();
  peer.stream.write(requestFrame(1, 'Collect', { key: 'first' }, { flags: 2 }));
  peer.stream.write(frameBytes(1, 3, 0, message('second')));
  peer.stream.write(frameBytes(1, 3, 0, Buffer.alloc(0))); // an empty message is a message
  peer.stream.write(frameBytes(1, 3, 5, Buffer.alloc(0)));
  assert.deepEqual((await peer.answer(1)).echoed, { key: '3', value: 'first,second,' });
});

test('a stream ends with a data frame that says remote closed and no data', async () => {
  const { peer } = rawClient();
  peer.stream.write(requestFrame(1, 'List', { key: '2' }, { flags: 1 }));
  const frames = await peer.received(1, 3);
  assert.deepEqual(
    frames.map(({ type, flags }) => [type, flags]),
    [
      [3, 0],
      [3, 0],
      [3, 5],
    ],
  );
});

test('a server may end a stream with its last message, or with a response instead of data', async () => {
  const { test, peer } = rawServer();
  const streams = [1, 2, 3].map(() => all(test.list(nothing)));
  await peer.received(5);
  peer.stream.write(frameBytes(1, 3, 1, message('last')));
  peer.stream.write(
    frameBytes(3, 2, 0, Response.encode({ status: undefined, payload: message('only') }).finish()),
  );
  peer.stream.write(frameBytes(5, 2, 0, Buffer.alloc(0)));
  assert.deepEqual(await Promise.all(streams), [
    [{ key: 'last', value: '' }],
    [{ key: 'only', value: '' }],
    [],
  ]);
});

test('messages that are no protobuf fail the loop that reads them, not the process', async () => {
  const { peer } = rawClient();
  peer.stream.write(requestFrame(1, 'Collect', {}, { flags: 2 }));
  peer.stream.write(frameBytes(1, 3, 0, Buffer.from('0aff', 'hex')));
  assert.equal((await peer.answer(1)).code, Code.Internal);
});

test('a stream whose handler is slow stalls its connection for a second at most, then fails alone', async () => {
  const { test } = pair();
  const started = performance.now();
  const many = Array.from({ length: 100_000 }, () => ({ key: 'slow', value: 'v'.repeat(100) }));
  const slow = assert.rejects(test.collect(many), { code: Code.ResourceExhausted });
  await setTimeout(100);
  assert.deepEqual(await test.echo(nothing), nothing);
  assert.ok(performance.now() - started < 2500 * slowness);
  await slow;
});

test('a response stream that nobody reads stalls the others for a second at most, then is given up', async () => {
  const record = new Record();
  const { test, client } = pair({}, record);
  const unread = test.list({ key: '1000000', value: 'v'.repeat(100) });
  await setTimeout(50);
  assert.deepEqual(await test.echo(nothing), nothing);
  while (!record.listEnded) await setTimeout(10);
  assert.ok(record.listed < 1_000_000);
  assert.equal(client.calls, 0);
  await assert.rejects(all(unread), { code: Code.ResourceExhausted });
});

test('a stream that never has to wait for its messages lets the rest of the process live', async () => {
  const record = new Record();
  const { test } = pair({}, record);
  const stream = all(test.list({ key: '50000', value: '' }));
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  await stream;
  clearInterval(timer);
  assert.ok(turns > 3, `${String(turns)} turns of the event loop`);
});
