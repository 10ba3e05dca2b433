import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { bytesOf, marked, payloadOf, statusFrame, targetOf } from '../../../../shim/guard/frames.ts';
import { AGAIN } from '../../../../shim/guard/messages.ts';
import { FrameDecoder, FrameType, HEADER_LENGTH, type MessageFrame } from '../../../../ttrpc/frame.ts';
import { decodeRequest, decodeResponse, encodeRequest } from '../../../../ttrpc/message.ts';
import { Metadata } from '../../../../ttrpc/metadata.ts';
import { Empty } from '../../../../src/proto/gen/google/protobuf/empty.ts';

function only(bytes: Uint8Array): MessageFrame {
  const [frame, ...more] = new FrameDecoder().push(bytes);
  assert.ok(frame?.kind === 'message' && more.length === 0);
  return frame;
}

const request = (): MessageFrame =>
  only(
    encodeRequest(
      7,
      0,
      {
        service: 'containerd.task.v2.Task',
        method: 'Wait',
        timeoutNano: -5_000_000_000n,
        metadata: Metadata.from({ tenant: 'x'.repeat(300) }),
      },
      { type: Empty, message: {} },
    ),
  );

suite("the guard's few words of ttrpc", () => {
  test('a request tells whom it is for, whatever else is in it', () => {
    assert.deepEqual(targetOf(request().body), { service: 'containerd.task.v2.Task', method: 'Wait' });
    assert.deepEqual(targetOf(Buffer.alloc(0)), { service: '', method: '' });
    assert.deepEqual(payloadOf(Buffer.alloc(0)), Buffer.alloc(0));
    assert.deepEqual(targetOf(Buffer.from([0x0a, 0xff])), { service: '', method: '' }, 'cut off');
  });

  test('a marked request is the same, but for the mark', () => {
    const before = decodeRequest(request().body);
    const after = decodeRequest(only(bytesOf(marked(request()))).body);
    assert.equal(after.metadata.get(AGAIN), '1');
    assert.equal(after.metadata.get('tenant'), before.metadata.get('tenant'));
    assert.equal(after.timeoutNano, before.timeoutNano);
    assert.equal(after.method, 'Wait');
  });

  test('a refusal is a response with a status that every client reads', () => {
    const why = 'ü'.repeat(200);
    const frame = only(statusFrame(9, 14, why));
    assert.deepEqual([frame.streamId, frame.type, frame.flags], [9, FrameType.Response, 0]);
    const { status } = decodeResponse(frame.body);
    assert.deepEqual([status?.code, status?.message], [14, why]);
  });

  test('a frame goes on as it came', () => {
    const bytes = bytesOf(request());
    assert.equal(bytes.length, HEADER_LENGTH + request().body.length);
    assert.deepEqual(Buffer.from(only(bytes).body), Buffer.from(request().body));
    assert.equal(only(bytes).streamId, 7);
  });
});
