import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { OwnConnection } from '../../../shim/events/courier.ts';
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
  const options = {
    namespace: 'ns',
    courier: undefined,
    address: '/c.sock',
    publishBinary: '/bin/containerd',
  };
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

for (const [containerd, listens] of [
  ['accepts and says nothing', true],
  ['is not there', false],
] as const) {
  test(`closing gives up an event of which containerd ${containerd}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'sink-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'ttrpc');
    const silent = createServer();
    if (listens) await new Promise<void>((resolve) => silent.listen(path, resolve));
    t.after(() => silent.close());
    const events = new ContainerdSink({
      ...{ namespace: 'ns', address: '/c.sock', publishBinary: '/bin/containerd' },
      courier: new OwnConnection(path),
      exec: () => assert.fail('no program is started'),
    });
    const published = events.publish(event);
    setTimeout(() => events.close(), 50);
    const before = performance.now();
    await assert.rejects(published, Unavailable);
    assert.ok(performance.now() - before < 4000, 'not after all its attempts');
  });
}
