import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import {
  encodeFrame,
  type Frame,
  FrameFlag,
  FrameReader,
  FrameType,
  words,
} from '../../../src/http2/frame.ts';
import { decodeFields, encodeFields, type Field } from '../../../src/http2/hpack.ts';
import { ServerConnection } from '../../../src/http2/server-connection.ts';
import type { ServerStream } from '../../../src/http2/server-stream.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const request = encodeFields([[':path', '/x']]);
const settings = encodeFrame(FrameType.Settings, 0, 0, Buffer.alloc(0));
const GOAWAY_CODE_AT = 4;

/** The client's end: what it says goes to the server, and what the server says is read as frames. */
class Peer extends Duplex {
  readonly frames: Frame[] = [];
  readonly seen: string[] = [];
  readonly streams: ServerStream[] = [];
  readonly connection: ServerConnection;
  readonly #reader = new FrameReader();

  constructor() {
    super();
    this.connection = new ServerConnection(this, (stream, fields) => {
      this.streams.push(stream);
      const name = String(fields[0]?.[1]);
      this.seen.push(`begin ${name}`);
      return {
        data: (bytes) => void this.seen.push(`data ${bytes.length}`),
        end: () => void this.seen.push('end'),
        cancelled: () => void this.seen.push('cancelled'),
      };
    });
  }

  override _read(): void {
    // What is pushed is all there is.
  }

  override _write(bytes: Buffer, _encoding: string, done: () => void): void {
    this.frames.push(
      ...this.#reader.push(bytes).map((frame) => ({ ...frame, payload: Buffer.from(frame.payload) })),
    );
    done();
  }

  async says(...parts: Buffer[]): Promise<void> {
    for (const part of parts) this.push(part);
    await turns();
  }

  of(type: number): Frame[] {
    return this.frames.filter((frame) => frame.type === type);
  }

  /** The code with which the server ended the connection. */
  get goneWith(): number | undefined {
    return this.of(FrameType.GoAway)[0]?.payload.readUInt32BE(GOAWAY_CODE_AT);
  }
}

async function turns(): Promise<void> {
  for (let at = 0; at < 5; at++) await new Promise(setImmediate);
}

async function greeted(): Promise<Peer> {
  const peer = new Peer();
  await peer.says(PREFACE, settings);
  return peer;
}

const headers = (id: number, flags: number, block = request): Buffer =>
  encodeFrame(FrameType.Headers, flags, id, block);
const { EndHeaders, EndStream } = FrameFlag;

test('a request that comes byte by byte, in pieces of headers, is one request', async () => {
  const peer = new Peer();
  const all = Buffer.concat([
    PREFACE,
    settings,
    encodeFrame(FrameType.Headers, 0, 1, request.subarray(0, 3)),
    encodeFrame(FrameType.Continuation, 0, 1, request.subarray(3, 4)),
    encodeFrame(FrameType.Continuation, EndHeaders, 1, request.subarray(4)),
    encodeFrame(FrameType.Data, 0, 1, Buffer.from('abc')),
    encodeFrame(FrameType.Data, EndStream, 1, Buffer.from('d')),
  ]);
  for (const byte of all) peer.push(Buffer.of(byte));
  await turns();
  assert.deepEqual(peer.seen, ['begin /x', 'data 3', 'data 1', 'end']);
  assert.equal(peer.of(FrameType.Settings).filter(({ flags }) => flags & FrameFlag.Ack).length, 1);
});

const mistakes: Readonly<Record<string, { code: number; parts: readonly Buffer[] }>> = {
  'a frame inside a header block': {
    code: 1,
    parts: [headers(1, 0), encodeFrame(FrameType.Ping, 0, 0, Buffer.alloc(8))],
  },
  'a stream with an even number': { code: 1, parts: [headers(2, EndHeaders)] },
  'a body of a stream that was never opened': {
    code: 1,
    parts: [encodeFrame(FrameType.Data, 0, 7, Buffer.of(1))],
  },
  'a push': { code: 1, parts: [encodeFrame(FrameType.PushPromise, EndHeaders, 1, Buffer.alloc(8))] },
  'a header block that cannot be read': {
    code: 9,
    parts: [headers(1, EndHeaders, Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff))],
  },
  'a window that is opened by nothing': {
    code: 1,
    parts: [encodeFrame(FrameType.WindowUpdate, 0, 0, words(0))],
  },
  'a window beyond the largest': {
    code: 3,
    parts: [encodeFrame(FrameType.WindowUpdate, 0, 0, words(0x7fffffff))],
  },
  'a frame that is too long': { code: 1, parts: [Buffer.from('010000000000000000', 'hex')] },
};
for (const [name, { code, parts }] of Object.entries(mistakes)) {
  test(`${name} ends the connection, and what ran there is told`, async () => {
    const peer = await greeted();
    await peer.says(headers(1, EndHeaders), encodeFrame(FrameType.Data, 0, 1, Buffer.of(1)));
    const shifted = parts.map((part) => (part.readUInt32BE(5) === 1 ? withStream(part, 3) : part));
    await peer.says(...shifted);
    assert.equal(peer.goneWith, code);
    peer.destroy();
    await peer.connection.closed;
    assert.deepEqual(peer.seen, ['begin /x', 'data 1', 'cancelled']);
  });
}

function withStream(frame: Buffer, id: number): Buffer {
  const copy = Buffer.from(frame);
  copy.writeUInt32BE(id, 5);
  return copy;
}

test('what speaks another protocol is told so and gets no answer', async () => {
  const peer = new Peer();
  await peer.says(Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n'));
  assert.equal(peer.goneWith, 1);
  assert.deepEqual(peer.seen, []);
});

test('a ping is answered with what it holds, and an answer to one is not', async () => {
  const peer = await greeted();
  await peer.says(encodeFrame(FrameType.Ping, 0, 0, Buffer.from('12345678')));
  await peer.says(encodeFrame(FrameType.Ping, FrameFlag.Ack, 0, Buffer.from('abcdefgh')));
  assert.deepEqual(
    peer.of(FrameType.Ping).map(({ flags, payload }) => [flags, payload.toString()]),
    [[FrameFlag.Ack, '12345678']],
  );
});

const trailers = encodeFields([['grpc-status', '0']]);
const bodyOf = (peer: Peer): number =>
  peer.of(FrameType.Data).reduce((sum, { payload }) => sum + payload.length, 0);

test('an answer keeps to the windows of its stream and of all, and its trailers come last', async () => {
  const peer = new Peer();
  const small = Buffer.alloc(6);
  small.writeUInt16BE(4, 0);
  small.writeUInt32BE(100, 2);
  await peer.says(PREFACE, encodeFrame(FrameType.Settings, 0, 0, small), headers(1, EndHeaders | EndStream));
  const [stream] = peer.streams;
  stream?.respond(request);
  stream?.write(Buffer.alloc(70_000));
  stream?.finish(trailers);
  await turns();
  assert.equal(bodyOf(peer), 100);
  small.writeUInt32BE(150, 2);
  await peer.says(encodeFrame(FrameType.Settings, 0, 0, small));
  assert.equal(bodyOf(peer), 150, 'a change of the setting counts for what runs');
  await peer.says(encodeFrame(FrameType.WindowUpdate, 0, 1, words(100_000)));
  assert.equal(bodyOf(peer), 65_535, "the connection's window is what is left");
  assert.equal(peer.of(FrameType.Headers).length, 1);
  await peer.says(encodeFrame(FrameType.WindowUpdate, 0, 0, words(100_000)));
  assert.equal(bodyOf(peer), 70_000);
  const last = peer.frames.at(-1);
  assert.equal(last?.flags, EndHeaders | EndStream);
  assert.deepEqual(decodeFields(last?.payload ?? Buffer.alloc(0)), [['grpc-status', '0']] satisfies Field[]);
  assert.deepEqual(peer.seen, ['begin /x', 'end'], 'nothing is cancelled that was answered');
});

test('a stream that its client resets is over: its handler hears it once, and nothing is sent any more', async () => {
  const peer = await greeted();
  await peer.says(headers(1, EndHeaders | EndStream));
  const reset = encodeFrame(FrameType.RstStream, 0, 1, words(8));
  await peer.says(reset, reset, encodeFrame(FrameType.WindowUpdate, 0, 1, words(1)));
  const before = peer.frames.length;
  peer.streams[0]?.write(Buffer.alloc(10));
  peer.streams[0]?.finish(trailers);
  await turns();
  assert.equal(peer.frames.length, before);
  assert.deepEqual(peer.seen, ['begin /x', 'end', 'cancelled']);
  await peer.says(headers(3, EndHeaders | EndStream));
  assert.equal(peer.streams.length, 2, 'the connection lives on');
});

test('an answer before the end of its request tells the client to stop', async () => {
  const peer = await greeted();
  await peer.says(headers(1, EndHeaders));
  peer.streams[0]?.finish(trailers);
  await peer.says(encodeFrame(FrameType.Data, EndStream, 1, Buffer.of(1)));
  assert.deepEqual(
    peer.of(FrameType.RstStream).map(({ payload }) => payload.readUInt32BE(0)),
    [0],
  );
  assert.deepEqual(peer.seen, ['begin /x']);
});

test('a header block that is longer than a frame goes in several', async () => {
  const peer = await greeted();
  await peer.says(headers(1, EndHeaders | EndStream));
  const long: Field[] = [['grpc-message', 'x'.repeat(40_000)]];
  peer.streams[0]?.finish(encodeFields(long));
  await turns();
  const parts = peer.frames.filter(({ streamId }) => streamId === 1);
  assert.deepEqual(
    parts.map(({ type, flags }) => [type, flags]),
    [
      [FrameType.Headers, EndStream],
      [FrameType.Continuation, 0],
      [FrameType.Continuation, EndHeaders],
    ],
  );
  assert.deepEqual(decodeFields(Buffer.concat(parts.map(({ payload }) => payload))), long);
});

test('a connection that closes refuses what comes then, and ends with its last stream', async () => {
  const peer = await greeted();
  await peer.says(headers(1, EndHeaders | EndStream));
  peer.connection.close();
  await peer.says(headers(3, EndHeaders | EndStream));
  assert.equal(peer.of(FrameType.GoAway)[0]?.payload.readUInt32BE(0), 1, 'the last that is answered');
  assert.deepEqual(
    peer.of(FrameType.RstStream).map(({ streamId, payload }) => [streamId, payload.readUInt32BE(0)]),
    [[3, 7]],
  );
  assert.ok(!peer.writableEnded);
  peer.streams[0]?.finish(trailers);
  await turns();
  assert.ok(peer.writableEnded);
  assert.deepEqual(peer.seen, ['begin /x', 'end']);
});
