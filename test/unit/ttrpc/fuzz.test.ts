// Peers that send anything at all. Each round has a seed, which its failure names.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FrameDecoder, MAX_BODY } from '../../../ttrpc/index.ts';
import { Random, frameBytes, pair, rawClient, rawServer, requestFrame } from './fixture.ts';

const HOSTILE_IDS = [0, 1, 2, 3, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];
const METHODS = ['Echo', 'Fail', 'Big', 'List', 'Collect', 'Chat', 'NoSuch', ''];

/** A frame that is right in some of its parts. */
function hostileFrame(random: Random): Buffer {
  const id = random.pick([random.pick(HOSTILE_IDS), random.below(200)]);
  const flags = random.pick([0, 1, 2, 5, random.below(256)]);
  const body = random.bytes(random.below(64));
  switch (random.below(8)) {
    case 0:
      return random.bytes(1 + random.below(40));
    case 1:
      return frameBytes(id, random.pick([1, 2, 3, 0x80, random.below(256)]), flags, body);
    case 2:
      return frameBytes(id, 3, flags, body);
    case 3: {
      const whole = requestFrame(id, 'Echo', { key: 'cut' });
      return whole.subarray(0, random.below(whole.length));
    }
    case 4: {
      const oversize = frameBytes(id, random.pick([1, 3]), flags, Buffer.alloc(0));
      oversize.writeUInt32BE(MAX_BODY + 1 + random.below(100), 0);
      return random.below(40) === 0 ? Buffer.concat([oversize, Buffer.alloc(MAX_BODY + 1)]) : oversize;
    }
    case 5: {
      const spoiled = requestFrame(id, 'Echo', { key: 'spoiled', value: 'x'.repeat(50) });
      for (let i = random.below(6); i >= 0; i--) spoiled[random.below(spoiled.length)] = random.below(256);
      return spoiled;
    }
    case 6:
      return requestFrame(id, random.pick(METHODS), {}, { payload: body, flags });
    default: {
      const key = String(random.below(20));
      return requestFrame(id, random.pick(METHODS), { key, value: 'v' }, { flags, timeoutNano: -1n });
    }
  }
}

test('the decoder takes any bytes, in any pieces, within its bound of memory', () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const decoder = new FrameDecoder();
    for (let i = 0; i < 50; i++) {
      const bytes = hostileFrame(random);
      const at = random.below(bytes.length + 1);
      decoder.push(bytes.subarray(0, at));
      decoder.push(bytes.subarray(at));
      assert.ok(decoder.held <= MAX_BODY, `seed ${String(seed)}`);
    }
  }
});

test('whatever one client sends, the server lives and its other connections are answered', async () => {
  const healthy = pair();
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const { server, connection, near } = rawClient();
    for (let i = 0; i < 30; i++) near.write(hostileFrame(random));
    await setImmediate();
    const got = await healthy.test.echo({ key: String(seed), value: '' });
    assert.equal(got.key, String(seed), `seed ${String(seed)}`);
    assert.ok(connection.calls <= 30, `seed ${String(seed)}`);
    near.destroy();
    connection.close();
    await new Promise<void>((resolve) => connection.onClose(resolve));
    assert.equal(server.connections.size, 0, `seed ${String(seed)}`);
    assert.equal(connection.calls, 0, `seed ${String(seed)}`);
  }
});

test('hostile frames that are whole leave the other streams of their connection unharmed', async () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new Random(seed);
    const { peer, connection } = rawClient();
    peer.stream.write(requestFrame(1, 'Wait', { key: '1' }));
    for (let i = 0; i < 20; i++) {
      // Any even or lower id, any type and flags; stream 1 itself is left alone.
      const id = random.pick([0, 2, 0xfffffffe, 2 * random.below(1000), 3 + 2 * random.below(10)]);
      peer.stream.write(frameBytes(id, random.below(256), random.below(256), random.bytes(random.below(50))));
    }
    peer.stream.write(requestFrame(0x1001, 'Echo', { key: 'after' }));
    assert.equal((await peer.answer(0x1001)).echoed.key, 'after', `seed ${String(seed)}`);
    assert.equal((await peer.answer(1)).echoed.key, '1', `seed ${String(seed)}`);
    connection.close();
  }
});

test('requests that arrive one byte at a time are answered', async () => {
  const { peer } = rawClient();
  const bytes = Buffer.concat([requestFrame(1, 'Echo', { key: 'slowly' }), requestFrame(3, 'NoSuch')]);
  for (const byte of bytes) {
    peer.stream.write(Buffer.from([byte]));
    await setImmediate();
  }
  assert.equal((await peer.answer(1)).echoed.key, 'slowly');
  assert.equal((await peer.answer(3)).code, 12);
});

test('whatever a server sends, each call of the client ends, and its process lives', async () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const { client, test, peer } = rawServer();
    const calls = Promise.allSettled([
      test.echo({ key: '', value: '' }),
      test.list({ key: '', value: '' }).next(),
      test.collect([]),
      test.chat([{ key: '', value: '' }]).next(),
      test.echo({ key: '', value: '' }, { timeout: 50 }),
    ]);
    await peer.received(9);
    for (let i = 0; i < 20; i++) {
      const id = random.pick([1, 3, 5, 7, 9, random.pick(HOSTILE_IDS)]);
      const type = random.pick([2, 2, 3, random.below(256)]);
      peer.stream.write(frameBytes(id, type, random.below(8), random.bytes(random.below(20))));
    }
    peer.stream.write(random.bytes(random.below(30)));
    await setImmediate();
    peer.stream.end();
    await calls;
    await new Promise<void>((resolve) => client.onClose(resolve));
    assert.equal(client.calls, 0, `seed ${String(seed)}`);
    client.close();
  }
});

test('garbage for a long time does not grow the heap', async () => {
  const { near, connection } = rawClient();
  near.resume();
  const random = new Random(42);
  const round = async () => {
    for (let i = 0; i < 5000; i++) {
      const id = 2 * random.below(100);
      if (!near.write(frameBytes(id, random.below(4), 0, random.bytes(20)))) await setImmediate();
    }
    await setImmediate();
  };
  await round();
  const before = process.memoryUsage();
  for (let i = 0; i < 10; i++) await round();
  const after = process.memoryUsage();
  assert.ok(after.heapUsed - before.heapUsed < 64 << 20);
  assert.ok(after.arrayBuffers - before.arrayBuffers < 64 << 20);
  assert.ok(connection.stream.writableLength < 1 << 20);
  connection.close();
});
