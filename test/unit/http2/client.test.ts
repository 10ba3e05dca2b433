import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type ServerHttp2Stream } from 'node:http2';
import { createServer as createSocketServer, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Channel } from '../../../src/cli/client.ts';
import { Http2Connection, type StreamError } from '../../../src/http2/client-connection.ts';
import { content, encodeFrame, FrameFlag, FrameReader, FrameType, words } from '../../../src/http2/frame.ts';
import { decodeFields, encodeFields, type Field } from '../../../src/http2/hpack.ts';
import { decodeHuffman } from '../../../src/http2/huffman.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { StasisDefinition } from '../../../src/proto/gen/stasis/stasis.ts';

/** A folder with a path for a socket, gone at the end. */
async function socketPath(): Promise<{ path: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-http2-'));
  const dispose = (): Promise<void> => rm(folder, { recursive: true, force: true });
  return { path: join(folder, 's'), [Symbol.asyncDispose]: dispose };
}

interface Answer {
  fields: Field[];
  body: Buffer;
}

function ask(connection: Http2Connection, body = Buffer.alloc(0)): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const fields: Field[] = [];
    const parts: Buffer[] = [];
    const done = (): void => resolve({ fields, body: Buffer.concat(parts) });
    connection.request(
      [
        [':method', 'POST'],
        [':scheme', 'http'],
        [':path', '/'],
        [':authority', 'localhost'],
      ],
      body,
      {
        fields: (more, last) => {
          fields.push(...more);
          if (last) done();
        },
        data: (bytes) => void parts.push(bytes),
        end: done,
        failed: (error: StreamError) => reject(error),
      },
    );
  });
}

/** An exchange with Node's own HTTP/2 server. */
async function exchange(
  serve: (stream: ServerHttp2Stream) => void,
  use: (connection: Http2Connection) => Promise<void>,
): Promise<void> {
  await using place = await socketPath();
  const server = createServer();
  server.on('stream', serve);
  server.listen(place.path);
  await once(server, 'listening');
  const connection = new Http2Connection(connect(place.path));
  try {
    await use(connection);
  } finally {
    connection.close();
    server.close();
  }
}

test('headers of another implementation are read, Huffman strings of every character included', async () => {
  const printable = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index)).join('');
  const values = {
    all: `x${printable}x`,
    reversed: `x${Array.from(printable).reverse().join('')}x`,
    high: Array.from({ length: 96 }, (_, index) => String.fromCharCode(160 + index)).join(''),
    digits: '0123456789'.repeat(30),
    long: 'abc/'.repeat(2000),
    empty: '',
  };
  await exchange(
    (stream) => {
      stream.respond({ ':status': 200, ...values });
      stream.end('body');
    },
    async (connection) => {
      // Twice: the second answer would name entries of a dynamic table, were one allowed.
      for (let round = 0; round < 2; round++) {
        const { fields, body } = await ask(connection);
        const read = new Map(fields);
        assert.equal(read.get(':status'), '200');
        for (const [name, value] of Object.entries(values)) assert.equal(read.get(name), value, name);
        assert.equal(body.toString(), 'body');
      }
    },
  );
});

test('bodies larger than every window go both ways', async () => {
  const sent = Buffer.alloc(300_000, 'request ');
  const answered = Buffer.alloc(9 << 20, 'answer ');
  await exchange(
    (stream) => {
      const parts: Buffer[] = [];
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('end', () => {
        stream.respond({ ':status': Buffer.concat(parts).equals(sent) ? 200 : 400 });
        stream.end(answered);
      });
    },
    async (connection) => {
      const both = await Promise.all([ask(connection, sent), ask(connection, sent)]);
      for (const { fields, body } of both) {
        assert.equal(new Map(fields).get(':status'), '200');
        assert.ok(body.equals(answered));
      }
    },
  );
});

test('a stream that the server resets fails alone', async () => {
  let first = true;
  await exchange(
    (stream) => {
      if (first) {
        first = false;
        stream.on('error', () => undefined);
        return stream.close(7);
      }
      stream.respond({ ':status': 200 }, { endStream: true });
    },
    async (connection) => {
      await assert.rejects(ask(connection), { resetCode: 7 });
      assert.deepEqual((await ask(connection)).fields[0], [':status', '200']);
    },
  );
});

test('frames are the same in whatever pieces they arrive', () => {
  const bytes = Buffer.concat([
    encodeFrame(FrameType.Settings, 0, 0, Buffer.alloc(0)),
    encodeFrame(FrameType.Data, FrameFlag.EndStream, 3, Buffer.from('hello')),
    encodeFrame(FrameType.WindowUpdate, 0, 0, words(70_000)),
  ]);
  const whole = new FrameReader().push(bytes);
  const reader = new FrameReader();
  const single = Array.from(bytes, (byte) => reader.push(Buffer.of(byte))).flat();
  assert.deepEqual(single, whole);
  assert.deepEqual(
    whole.map(({ type, streamId, payload }) => [type, streamId, payload.length]),
    [
      [4, 0, 0],
      [0, 3, 5],
      [8, 0, 4],
    ],
  );
});

test('padding and priority are taken off, and padding longer than its frame is an error', () => {
  const frame = (flags: number, payload: number[]) => ({
    type: 1,
    flags,
    streamId: 1,
    payload: Buffer.from(payload),
  });
  const both = FrameFlag.Padded | FrameFlag.Priority;
  assert.deepEqual([...content(frame(both, [2, 0, 0, 0, 0, 16, 7, 8, 0, 0]))], [7, 8]);
  assert.throws(() => content(frame(FrameFlag.Padded, [9, 1])), /padding/);
});

test('malformed header blocks are errors, whatever they hold', () => {
  const blocks = {
    'an index beyond the static table': [0xbe],
    'index 0': [0x80],
    'a string that ends early': [0x00, 0x05, 0x61],
    'a number without an end': [0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    'a dynamic table although none is allowed': [0x3f, 0xe1, 0x1f],
  };
  for (const [name, bytes] of Object.entries(blocks)) {
    assert.throws(() => decodeFields(Buffer.from(bytes)), Error, name);
  }
  assert.throws(() => decodeHuffman(Buffer.from([0xff, 0xff, 0xff, 0xff])), /EOS|padded/);
  assert.throws(() => decodeHuffman(Buffer.from([0x00])), /padded/);
  for (let round = 0; round < 5000; round++) {
    const block = Buffer.from(Array.from({ length: round % 40 }, () => Math.floor(Math.random() * 256)));
    try {
      decodeFields(block);
    } catch (error) {
      assert.ok(
        error instanceof Error && !(error instanceof TypeError) && !(error instanceof RangeError),
        String(error),
      );
    }
  }
});

test('what is encoded is decoded, long values included', () => {
  const fields: Field[] = [
    ['a', ''],
    ['b', 'x'.repeat(127)],
    ['c', 'y'.repeat(20_000)],
  ];
  assert.deepEqual(decodeFields(encodeFields(fields)), fields);
});

/** What a call to a peer of the wrong kind ends with. */
async function callTo(serve: (socket: Socket) => void, greetingTimeout: number): Promise<unknown> {
  await using place = await socketPath();
  const server = createSocketServer((socket) => {
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.listen(place.path);
  await once(server, 'listening');
  const channel = new Channel(place.path, {}, greetingTimeout);
  try {
    return await channel.service(StasisDefinition).version({});
  } catch (error) {
    return error;
  } finally {
    channel.close();
    server.close();
  }
}

test('a peer that does not speak gRPC is an error, not a crash or a wait', async () => {
  const peers: Record<string, (socket: Socket) => void> = {
    closes: (socket) => socket.destroy(),
    'HTTP/1': (socket) => socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n'),
    zeros: (socket) => socket.write(Buffer.alloc(4096)),
    silent: () => undefined,
    'headers first': (socket) => socket.write(encodeFrame(FrameType.Headers, 4, 1, Buffer.of(0x88))),
    'settings, then goes away': (socket) => {
      socket.write(encodeFrame(FrameType.Settings, 0, 0, Buffer.alloc(0)));
      socket.end(encodeFrame(FrameType.GoAway, 0, 0, words(0, 0)));
    },
  };
  for (const [name, serve] of Object.entries(peers)) {
    const error = await callTo(serve, 300);
    assert.equal(codeOf(error), Code.Unavailable, `${name}: ${String(error)}`);
  }
});
