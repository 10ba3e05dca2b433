import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ContainerdSink } from '../../../shim/events/sink.ts';
import { Unavailable } from '../../../src/errors.ts';
import { Any } from '../../../src/proto/gen/google/protobuf/any.ts';
import type { CommandOptions, CommandResult, Exec } from '../../../src/sys/command.ts';

const done: CommandResult = {
  exitCode: 0,
  signal: undefined,
  stdout: '',
  stderr: '',
  timedOut: false,
  cancelled: false,
  durationMs: 1,
  spawnError: undefined,
};

const event = {
  timestamp: { seconds: 1n, nanos: 0 },
  topic: '/tasks/exit',
  typeUrl: 'containerd.events.TaskExit',
  value: Buffer.from([10, 3, 119, 101, 98]),
};

function sink(result: Partial<CommandResult> = {}) {
  const calls: { file: string; args: readonly string[]; options: CommandOptions | undefined }[] = [];
  const exec: Exec = async (file, args, options) => {
    calls.push({ file, args, options });
    return { ...done, ...result };
  };
  const options = { namespace: 'ns', ttrpcAddress: '', address: '/c.sock', publishBinary: '/bin/containerd' };
  return { calls, events: new ContainerdSink({ ...options, exec }) };
}

test('without a ttrpc socket an event goes through containerd’s own command, as an Any on its standard input', async () => {
  const { calls, events } = sink();
  await events.publish(event);
  const [call] = calls;
  assert.equal(call?.file, '/bin/containerd');
  assert.deepEqual(call.args, [
    ...['--address', '/c.sock', 'publish'],
    ...['--topic', '/tasks/exit', '--namespace', 'ns'],
  ]);
  assert.deepEqual(Any.decode(call.options?.input as Uint8Array), {
    typeUrl: event.typeUrl,
    value: event.value,
  });
});

test('what that command says is the error', async () => {
  const { events } = sink({ exitCode: 1, stderr: 'no containerd there\n' });
  await assert.rejects(
    events.publish(event),
    (error) => error instanceof Unavailable && /publish failed: no containerd there/.test(error.message),
  );
});
