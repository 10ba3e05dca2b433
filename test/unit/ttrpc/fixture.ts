// A service with one method of each kind, and a peer that speaks raw frames.
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { duplexPair } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import { KeyValue, Request, Response } from '../../../src/proto/gen/ttrpc.ts';
import { Client, Code, FrameDecoder, Server, StatusError, writeHeader } from '../../../ttrpc/index.ts';
import type { Context, Frame, Handlers, ServerOptions } from '../../../ttrpc/index.ts';

const unary = {
  requestType: KeyValue,
  requestStream: false,
  responseType: KeyValue,
  responseStream: false,
} as const;

export const TestDefinition = {
  name: 'Test',
  fullName: 'stasis.test.v1.Test',
  methods: {
    echo: { name: 'Echo', ...unary },
    fail: { name: 'Fail', ...unary },
    big: { name: 'Big', ...unary },
    wait: { name: 'Wait', ...unary },
    list: { name: 'List', ...unary, responseStream: true },
    collect: { name: 'Collect', ...unary, requestStream: true },
    chat: { name: 'Chat', ...unary, requestStream: true, responseStream: true },
  },
} as const;

/** What the handlers below saw, for tests to look at. */
export class Record {
  contexts: Context[] = [];
  aborted: unknown[] = [];
  listed = 0;
  listEnded = false;
}

export function handlers(record = new Record()): Handlers<typeof TestDefinition> {
  return {
    echo: async (request, context) => {
      record.contexts.push(context);
      return request;
    },
    fail: async ({ key, value }) => {
      if (key === '') throw new Error(value);
      throw new StatusError(Number(key), value);
    },
    big: async ({ key }) => ({ key: '', value: 'x'.repeat(Number(key)) }),
    wait: (request, context) => {
      record.contexts.push(context);
      return new Promise((resolve, reject) => {
        if (request.key !== '') setTimeout(Number(request.key)).then(() => resolve(request), reject);
        context.signal.addEventListener('abort', () => {
          record.aborted.push(context.signal.reason);
          reject(context.signal.reason as Error);
        });
      });
    },
    list: async function* ({ key, value }) {
      try {
        for (let i = 0; i < Number(key); i++) {
          record.listed++;
          yield { key: String(i), value };
        }
        if (value === 'fail') throw new StatusError(Code.NotFound, 'no more');
      } finally {
        record.listEnded = true;
      }
    },
    collect: async (requests) => {
      const keys: string[] = [];
      for await (const { key } of requests) {
        if (key === 'stop') break;
        if (key === 'slow') await setTimeout(3000);
        keys.push(key);
      }
      return { key: String(keys.length), value: keys.slice(0, 3).join() };
    },
    chat: async function* (requests) {
      for await (const { key, value } of requests) yield { key: value, value: key };
    },
  };
}

export function testServer(options?: ServerOptions, record?: Record): Server {
  return new Server(options).register(TestDefinition, handlers(record));
}

/** A client and a server on two ends of a pipe in memory. */
export function pair(options?: ServerOptions, record?: Record) {
  const [near, far] = duplexPair();
  const server = testServer(options, record);
  const connection = server.accept(far);
  const client = new Client(near);
  return { server, connection, client, test: client.service(TestDefinition), near, far };
}

export function frameBytes(streamId: number, type: number, flags: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(10 + body.length);
  writeHeader(bytes, body.length, streamId, type, flags);
  bytes.set(body, 10);
  return bytes;
}

/** The frame of a call, encoded by the generated codec. */
export function requestFrame(
  streamId: number,
  method: string,
  message: Partial<KeyValue> = {},
  rest: Partial<Request> & { flags?: number } = {},
): Buffer {
  const payload = Buffer.from(KeyValue.encode(KeyValue.fromPartial(message)).finish());
  const request = Request.fromPartial({ service: TestDefinition.fullName, method, payload, ...rest });
  return frameBytes(streamId, 1, rest.flags ?? 0, Request.encode(request).finish());
}

/** One end of a connection, driven frame by frame. */
export class RawPeer {
  readonly stream: Duplex;
  readonly frames: Frame[] = [];
  readonly #decoder = new FrameDecoder();
  #arrived = Promise.withResolvers<void>();

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('error', () => undefined);
    stream.on('data', (chunk: Uint8Array) => {
      // The decoder's bodies are views that are only good until the next push.
      for (const frame of this.#decoder.push(Uint8Array.from(chunk))) this.frames.push(frame);
      this.#wake();
    });
    stream.on('close', () => this.#wake());
  }

  #wake(): void {
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers<void>();
  }

  /** Waits until as many frames of a stream are there. */
  async received(streamId: number, count = 1): Promise<Frame[]> {
    for (;;) {
      const frames = this.frames.filter((frame) => frame.streamId === streamId);
      if (frames.length >= count) return frames;
      if (this.stream.destroyed) throw new Error(`closed while waiting for stream ${String(streamId)}`);
      await this.#arrived.promise;
    }
  }

  /** The status code and the message that a stream was answered with. */
  async answer(streamId: number): Promise<{ code: number; message: string; echoed: KeyValue }> {
    const [frame] = await this.received(streamId);
    if (frame?.kind !== 'message' || frame.type !== 2) throw new Error('not a response');
    const response = Response.decode(frame.body);
    const { code = 0, message = '' } = response.status ?? {};
    return { code, message, echoed: KeyValue.decode(response.payload) };
  }
}

/** A server whose client is driven by hand. */
export function rawClient(options?: ServerOptions, record?: Record) {
  const [near, far] = duplexPair();
  const server = testServer(options, record);
  const connection = server.accept(far);
  return { server, connection, peer: new RawPeer(near), near };
}

/** A client whose server is driven by hand. */
export function rawServer() {
  const [near, far] = duplexPair();
  const client = new Client(near);
  return { client, test: client.service(TestDefinition), peer: new RawPeer(far) };
}

export async function closedEvent(stream: Duplex): Promise<void> {
  if (!stream.closed) await once(stream, 'close');
}

/** Reproducible pseudo-random numbers (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** An integer from 0 to below `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x100000000) * limit);
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}
