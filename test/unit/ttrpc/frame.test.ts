import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameDecoder, MAX_BODY } from '../../../ttrpc/index.ts';
import type { Frame } from '../../../ttrpc/index.ts';
import { Random, frameBytes } from './fixture.ts';

function collect(bytes: Uint8Array, cut: (rest: number) => number): Frame[] {
  const decoder = new FrameDecoder();
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length;) {
    const size = Math.max(1, cut(bytes.length - at));
    // Copied, as the frame's body may be a view of the chunk.
    frames.push(...decoder.push(Uint8Array.from(bytes.subarray(at, at + size))));
    at += size;
  }
  assert.equal(decoder.midFrame, false);
  return frames.map((frame) =>
    frame.kind === 'message' ? { ...frame, body: Buffer.from(frame.body) } : frame,
  );
}

test('a header is written as length, stream id, type and flags in network byte order', () => {
  const bytes = frameBytes(0x89abcdef, 3, 5, Buffer.alloc(0x010203));
  assert.equal(bytes.subarray(0, 10).toString('hex'), '00010203' + '89abcdef' + '03' + '05');
});

test('a header is read as it was written, the highest stream id included', () => {
  const [frame] = new FrameDecoder().push(frameBytes(0xffffffff, 2, 1, Buffer.from('abc')));
  assert.deepEqual(frame, {
    kind: 'message',
    streamId: 0xffffffff,
    type: 2,
    flags: 1,
    body: Buffer.from('abc'),
  });
});

test('frames that arrive one byte at a time are the frames that arrive at once', () => {
  const bytes = Buffer.concat([
    frameBytes(1, 1, 0, Buffer.from('first')),
    frameBytes(3, 1, 0, Buffer.alloc(0)),
    frameBytes(5, 3, 5, Buffer.alloc(70_000, 7)),
  ]);
  const whole = collect(bytes, (rest) => rest);
  assert.equal(whole.length, 3);
  assert.deepEqual(
    collect(bytes, () => 1),
    whole,
  );
});

test('a body that arrives whole is not copied', () => {
  const bytes = frameBytes(1, 1, 0, Buffer.from('body'));
  const [frame] = new FrameDecoder().push(bytes);
  assert.equal(frame?.kind === 'message' && frame.body.buffer, bytes.buffer);
});

test('a body of exactly the maximum is a message and one byte more is oversize', () => {
  const [fits] = new FrameDecoder().push(frameBytes(1, 1, 0, Buffer.alloc(MAX_BODY)));
  assert.equal(fits?.kind, 'message');
  const [over] = new FrameDecoder().push(frameBytes(1, 1, 0, Buffer.alloc(MAX_BODY + 1)));
  assert.deepEqual(over, { kind: 'oversize', streamId: 1, type: 1, flags: 0, length: MAX_BODY + 1 });
});

test('an oversize body is discarded as it streams in, and the frame after it is read', () => {
  const decoder = new FrameDecoder();
  const header = frameBytes(7, 1, 0, Buffer.alloc(0));
  header.writeUInt32BE(0xffffffff, 0);
  assert.deepEqual(decoder.push(header), []);
  const chunk = Buffer.alloc(1 << 20);
  let left = 0xffffffff;
  for (; left > chunk.length; left -= chunk.length) {
    assert.equal(decoder.push(chunk).length, 0);
    assert.equal(decoder.held, 0);
  }
  const frames = decoder.push(
    Buffer.concat([chunk.subarray(0, left), frameBytes(9, 1, 0, Buffer.from('ok'))]),
  );
  assert.deepEqual(
    frames.map(({ kind, streamId }) => [kind, streamId]),
    [
      ['oversize', 7],
      ['message', 9],
    ],
  );
});

test('a header that claims four megabytes costs no memory until they come', () => {
  const decoder = new FrameDecoder();
  const frame = frameBytes(1, 1, 0, Buffer.alloc(MAX_BODY, 1));
  decoder.push(frame.subarray(0, 10));
  assert.equal(decoder.held, 0);
  decoder.push(frame.subarray(10, 11));
  assert.ok(decoder.held <= 64 << 10);
  for (let at = 11; at < frame.length - 1; at += 50_000) {
    decoder.push(frame.subarray(at, Math.min(at + 50_000, frame.length - 1)));
    assert.ok(decoder.held <= Math.max(64 << 10, 4 * at + 200_000));
  }
  const [message] = decoder.push(frame.subarray(frame.length - 1));
  assert.ok(message?.kind === 'message' && Buffer.compare(message.body, frame.subarray(10)) === 0);
  assert.equal(decoder.held, 0);
});

test('frames cut at random places are the same frames', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new Random(seed);
    const sent = Array.from({ length: 1 + random.below(20) }, () =>
      frameBytes(
        random.below(2 ** 32),
        random.below(256),
        random.below(256),
        random.bytes(random.below(4) * random.below(300)),
      ),
    );
    const bytes = Buffer.concat(sent);
    const expected = collect(bytes, (rest) => rest);
    assert.equal(expected.length, sent.length);
    const got = collect(bytes, () => random.below(random.pick([2, 12, 500])));
    assert.deepEqual(got, expected, `seed ${String(seed)}`);
  }
});
