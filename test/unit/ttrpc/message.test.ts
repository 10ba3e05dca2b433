import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyValue, Request, Response } from '../../../src/proto/gen/ttrpc.ts';
import { Code, HEADER_LENGTH, MAX_BODY, Metadata, StatusError } from '../../../ttrpc/index.ts';
import {
  decodeRequest,
  decodeResponse,
  encodeData,
  encodeEnd,
  encodeRequest,
  encodeResponse,
  encodeStatus,
} from '../../../ttrpc/message.ts';

const message: KeyValue = { key: 'clé', value: 'x'.repeat(300) };

test('a request is what the generated codec reads', () => {
  const metadata = new Metadata().append('a', '1').append('a', '2').append('b', '');
  const frame = encodeRequest(
    3,
    0,
    { service: 's.S', method: 'M', timeoutNano: 1_500_000_000n, metadata },
    { type: KeyValue, message },
  );
  assert.equal(Buffer.from(frame).readUInt32BE(0), frame.length - HEADER_LENGTH);
  const request = Request.decode(frame.subarray(HEADER_LENGTH));
  assert.deepEqual(request, {
    service: 's.S',
    method: 'M',
    payload: Buffer.from(KeyValue.encode(message).finish()),
    timeoutNano: 1_500_000_000n,
    metadata: [
      { key: 'a', value: '1' },
      { key: 'a', value: '2' },
      { key: 'b', value: '' },
    ],
  });
});

test('a request of the generated codec is read, unknown fields and repeated metadata keys included', () => {
  const request: Request = {
    service: 's.S',
    method: 'M',
    payload: Buffer.from('payload'),
    timeoutNano: -5n,
    metadata: [
      { key: 'K', value: '1' },
      { key: 'k', value: '2' },
    ],
  };
  const unknown = Buffer.from('7a03616263' + '8001ffffffffff01', 'hex'); // field 15, bytes; field 16, varint
  const decoded = decodeRequest(Buffer.concat([unknown, Request.encode(request).finish()]));
  assert.equal(decoded.service, 's.S');
  assert.equal(decoded.method, 'M');
  assert.equal(Buffer.from(decoded.payload).toString(), 'payload');
  assert.equal(decoded.timeoutNano, -5);
  assert.deepEqual(decoded.metadata.getAll('K'), ['1', '2']);
});

test('a successful response has no status', () => {
  const body = encodeResponse(1, KeyValue, message).subarray(HEADER_LENGTH);
  const response = Response.decode(body);
  assert.equal(response.status, undefined);
  assert.deepEqual(KeyValue.decode(response.payload), message);
  assert.equal(decodeResponse(body).status, undefined);
});

test('a status of OK from a peer that sends one is a success', () => {
  const body = Response.encode({
    status: { code: 0, message: '', details: [] },
    payload: Buffer.from('p'),
  }).finish();
  assert.equal(decodeResponse(body).status, undefined);
});

test('a status keeps its code, message and details', () => {
  const details = [{ typeUrl: 'type.googleapis.com/x.Y', value: Buffer.from('z') }];
  const frame = encodeStatus(1, new StatusError(Code.NotFound, 'no such task', { details }));
  const body = frame.subarray(HEADER_LENGTH);
  assert.deepEqual(Response.decode(body).status, { code: 5, message: 'no such task', details });
  const { status } = decodeResponse(body);
  assert.ok(status);
  assert.equal(status.code, 5);
  assert.equal(status.message, 'no such task');
  assert.deepEqual(
    status.details.map(({ value }) => Buffer.from(value)),
    [Buffer.from('z')],
  );
});

test('an error whose code is 0 or no integer is not sent as a success', () => {
  for (const code of [0, 1.5, NaN, 2 ** 40]) {
    const body = encodeStatus(1, new StatusError(code, 'x')).subarray(HEADER_LENGTH);
    assert.equal(Response.decode(body).status?.code, Code.Unknown);
  }
});

test('a status larger than a frame is cut, not thrown', () => {
  const details = [{ typeUrl: 'x', value: Buffer.alloc(MAX_BODY) }];
  const frame = encodeStatus(1, new StatusError(Code.Internal, 'm'.repeat(MAX_BODY), { details }));
  assert.ok(frame.length < MAX_BODY);
  assert.equal(decodeResponse(frame.subarray(HEADER_LENGTH)).status?.code, Code.Internal);
});

test('a message larger than a frame is refused, and the next one is encoded', () => {
  const big: KeyValue = { key: '', value: 'x'.repeat(MAX_BODY) };
  assert.throws(() => encodeResponse(1, KeyValue, big), { code: Code.ResourceExhausted });
  assert.throws(() => encodeData(1, KeyValue, big), { code: Code.ResourceExhausted });
  assert.deepEqual(
    KeyValue.decode(Response.decode(encodeResponse(1, KeyValue, message).subarray(10)).payload),
    message,
  );
});

test('a codec that throws halfway leaves nothing behind in the next frame', () => {
  const broken = {
    ...KeyValue,
    encode: (_: KeyValue, writer = KeyValue.encode(message)) => {
      writer.uint32(10).string('left over');
      throw new Error('broken');
    },
  };
  assert.throws(() => encodeData(1, broken, message), /broken/);
  assert.deepEqual(KeyValue.decode(encodeData(1, KeyValue, message).subarray(HEADER_LENGTH)), message);
});

test('the end of a stream is a data frame with remote closed and no data, and no body', () => {
  assert.equal(Buffer.from(encodeEnd(0x0b)).toString('hex'), '00000000' + '0000000b' + '03' + '05');
});

test('bytes that are no protobuf are an error, not a crash', () => {
  for (const hex of ['ff', '0aff', '1a7f00', '00', '0f', '2a0aff', '0affffffff0f', '0b'.repeat(5000)]) {
    assert.throws(() => decodeRequest(Buffer.from(hex, 'hex')), `request ${hex.slice(0, 20)}`);
    assert.throws(() => decodeResponse(Buffer.from(hex, 'hex')), `response ${hex.slice(0, 20)}`);
  }
});
