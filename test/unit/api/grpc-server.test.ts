import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Server as SocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { GrpcChannel, type GrpcClient, MAX_MESSAGE_BYTES } from '../../../src/api/grpc-client.ts';
import { type GrpcHandlers, GrpcServer } from '../../../src/api/grpc-server.ts';
import {
  Code,
  codeOf,
  FailedPrecondition,
  messageOf,
  StasisError,
  Unimplemented,
} from '../../../src/errors.ts';
import { Kind, type Info, SnapshotsDefinition } from '../../../src/proto/gen/containerd/snapshots.ts';
import { StasisDefinition } from '../../../src/proto/gen/stasis/stasis.ts';

type Handlers = GrpcHandlers<SnapshotsDefinition>;

const snapshotter = 'stasis';
const MIB = 1 << 20;

function info(name: string, labels: Record<string, string> = {}): Info {
  const at = { seconds: 1n, nanos: 2 };
  return { name, parent: '', kind: Kind.ACTIVE, createdAt: at, updatedAt: at, labels };
}

/** A server with some of the service's methods, and grpc-js's client of it, which knows nothing of ours. */
async function serving(
  t: TestContext,
  handlers: Partial<Handlers>,
): Promise<{
  client: GrpcClient<SnapshotsDefinition>;
  channel: GrpcChannel;
  server: GrpcServer;
  sockets: SocketServer;
}> {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-grpc-'));
  const server = new GrpcServer();
  const rest = Object.fromEntries(
    Object.keys(SnapshotsDefinition.methods).map((name) => [
      name,
      () => Promise.reject(new Unimplemented(`${name} is not in this test`)),
    ]),
  ) as unknown as Handlers;
  server.addService(SnapshotsDefinition, { ...rest, ...handlers });
  const sockets = await server.listen(join(folder, 's'));
  const channel = new GrpcChannel(join(folder, 's'), { 'containerd-namespace': 'k8s.io' });
  t.after(async () => {
    channel.close();
    sockets.close();
    await server.close(0);
    await rm(folder, { recursive: true });
  });
  return { client: channel.service(SnapshotsDefinition), channel, server, sockets };
}

const withCode = (code: Code) => (error: unknown) => {
  assert.equal(codeOf(error), code, messageOf(error));
  return true;
};

test('a call has its answer, and many at once have each their own', async (t) => {
  const { client } = await serving(t, { stat: async ({ key }) => ({ info: info(`${key}!`) }) });
  const names = Array.from({ length: 300 }, (_, at) => `name ${at}`);
  const answers = await Promise.all(names.map((key) => client.stat({ snapshotter, key })));
  assert.deepEqual(
    answers.map((answer) => answer.info),
    names.map((name) => info(`${name}!`)),
  );
});

test('an error comes with its code, its message in any script, and what we say beside it', async (t) => {
  const { client } = await serving(t, {
    remove: () =>
      Promise.reject(
        new FailedPrecondition('100 % ☃\n', {
          subject: 'naïve',
          remedy: 'wait',
          reason: 'cold',
          cause: new Error('x'),
        }),
      ),
    usage: () => Promise.reject(new Error('plain')),
  });
  await assert.rejects(client.remove({ snapshotter, key: 'a' }), (error) => {
    assert.ok(error instanceof StasisError);
    const { code, message, subject, remedy, reason, cause } = error;
    assert.deepEqual(
      { code, message, subject, remedy, reason, cause },
      {
        code: Code.FailedPrecondition,
        message: '100 % ☃\n',
        subject: 'naïve',
        remedy: 'wait',
        reason: 'cold',
        cause: 'x',
      },
    );
    return true;
  });
  await assert.rejects(client.usage({ snapshotter, key: 'a' }), withCode(Code.Unknown));
});

test('a service that is not there is unimplemented', async (t) => {
  const { channel } = await serving(t, {});
  await assert.rejects(channel.service(StasisDefinition).version({}), (error) => {
    assert.equal(codeOf(error), Code.Unimplemented);
    assert.match(messageOf(error), /stasis\.v1\.Stasis\/Version/);
    return true;
  });
});

test('messages of 15 MiB go both ways, past every window, and longer ones are refused', async (t) => {
  const { client } = await serving(t, {
    update: async ({ info: given }) => ({ info: given }),
    stat: async () => ({ info: info('a', { long: 'x'.repeat(MAX_MESSAGE_BYTES) }) }),
  });
  const long = info('a', { long: 'x'.repeat(15 * MIB) });
  const [one, two] = await Promise.all(
    [long, long].map((each) => client.update({ snapshotter, info: each, updateMask: undefined })),
  );
  assert.deepEqual([one?.info, two?.info], [long, long]);
  await assert.rejects(client.stat({ snapshotter, key: 'a' }), withCode(Code.ResourceExhausted));
  const longer = info('a', { long: 'x'.repeat(MAX_MESSAGE_BYTES) });
  await assert.rejects(
    client.update({ snapshotter, info: longer, updateMask: undefined }),
    withCode(Code.ResourceExhausted),
  );
  assert.deepEqual(
    (await client.update({ snapshotter, info: info('b'), updateMask: undefined })).info,
    info('b'),
  );
});

test('a listing waits for a client that does not read', async (t) => {
  let made = 0;
  const { client } = await serving(t, {
    list: async function* () {
      for (; made < 400; made++) yield { info: [info(`n${made}`, { long: 'x'.repeat(100_000) })] };
    },
  });
  const names: string[] = [];
  for await (const answer of client.list({ snapshotter, filters: [] })) {
    if (names.length === 0) {
      await sleep(300);
      assert.ok(made < 200, `${made} of 400 messages were made though nobody reads`);
    }
    names.push(...answer.info.map(({ name }) => name));
  }
  assert.deepEqual(
    names,
    Array.from({ length: 400 }, (_, at) => `n${at}`),
  );
});

test('an error after some messages of a listing is the end of it', async (t) => {
  const { client } = await serving(t, {
    list: async function* () {
      yield { info: [info('a')] };
      throw new FailedPrecondition('no more');
    },
  });
  const got: string[] = [];
  await assert.rejects(async () => {
    for await (const answer of client.list({ snapshotter, filters: [] }))
      got.push(...answer.info.map((i) => i.name));
  }, withCode(Code.FailedPrecondition));
  assert.deepEqual(got, ['a']);
});

test('a handler hears that its client cancelled, or waits no longer; and what it then answers is dropped', async (t) => {
  const heard: string[] = [];
  const begun = Promise.withResolvers<void>();
  const { client } = await serving(t, {
    cleanup: (_request, { signal, metadata }) =>
      new Promise((resolve) => {
        assert.equal(metadata.get('containerd-namespace'), 'k8s.io');
        begun.resolve();
        signal.addEventListener('abort', () => {
          heard.push(messageOf(signal.reason));
          resolve({});
        });
      }),
  });
  const controller = new AbortController();
  const call = client.cleanup({ snapshotter }, { signal: controller.signal });
  await begun.promise;
  controller.abort();
  await assert.rejects(call, withCode(Code.Cancelled));
  await assert.rejects(client.cleanup({ snapshotter }, { timeoutMs: 50 }), withCode(Code.DeadlineExceeded));
  const deadline = Date.now() + 5000;
  while (heard.length < 2 && Date.now() < deadline) await sleep(5);
  assert.equal(heard.length, 2, heard.join());
});

test('a stop lets the calls that run finish, and takes no others', async (t) => {
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const { client, server, sockets } = await serving(t, {
    commit: async () => {
      begun.resolve();
      await gate.promise;
      return {};
    },
    stat: async () => ({ info: info('a') }),
  });
  const request = { snapshotter, name: 'a', key: 'b', labels: {}, parent: '' };
  const call = client.commit(request);
  await begun.promise;
  sockets.close();
  const closed = server.close(60_000);
  await sleep(50);
  await assert.rejects(client.stat({ snapshotter, key: 'a' }, { timeoutMs: 2000 }));
  gate.resolve();
  assert.deepEqual(await call, {});
  await closed;
});
