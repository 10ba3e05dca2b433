import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { ContainerdSink } from '../../../../shim/events/sink.ts';
import { Outbox, type Answered } from '../../../../shim/guard/outbox.ts';
import { GuardedCourier, type Caller } from '../../../../shim/worker/guarded-courier.ts';
import { EventsDefinition } from '../../../../src/proto/gen/containerd/events_ttrpc.ts';
import { Code, Server, StatusError } from '../../../../ttrpc/index.ts';

/** containerd's events service: what came, and each answered when the test says so. */
async function containerd(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'outbox-'));
  const path = join(folder, 'ttrpc');
  const came: string[] = [];
  const held: { answer: () => void; refuse: () => void }[] = [];
  const listen = async (): Promise<Server> => {
    const listener = createServer();
    await new Promise<void>((resolve) => listener.listen(path, resolve));
    return new Server()
      .register(EventsDefinition, {
        forward: ({ envelope }) => {
          came.push(envelope?.topic ?? '');
          return new Promise((resolve, reject) => {
            const refuse = (): void => reject(new StatusError(Code.InvalidArgument, 'not that'));
            held.push({ answer: () => resolve({}), refuse });
          });
        },
      })
      .listen(listener);
  };
  const servers = [await listen()];
  t.after(async () => {
    for (const server of servers) await server.close();
    rmSync(folder, { recursive: true });
  });
  const arrived = async (count: number): Promise<void> => {
    while (came.length < count) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  const restart = async (): Promise<void> => {
    await servers.at(-1)?.close();
    servers.push(await listen());
  };
  return { path, came, held, arrived, restart };
}

/** A guard's outbox, and workers that come one after the other: each hears from when it is there, and is gone when the next one is. */
function guard(t: TestContext, path: string) {
  t.after(() => before?.close());
  let hear: (answered: Answered) => void = () => undefined;
  let before: ContainerdSink | undefined;
  const outbox = new Outbox((answered) => hear(answered));
  const worker = (): ContainerdSink => {
    const calls = new Map<string, PromiseWithResolvers<Uint8Array>>();
    hear = ({ key, body, error }) => {
      if (body !== undefined) calls.get(key)?.resolve(Buffer.from(body, 'base64'));
      else calls.get(key)?.reject(new Error(error));
    };
    const caller: Caller = {
      call: (key, to, body, afresh) => {
        calls.set(key, Promise.withResolvers());
        const base64 = Buffer.from(body).toString('base64');
        outbox.call({ kind: 'call', key, path: to, body: base64, afresh });
        return calls.get(key)?.promise ?? assert.fail();
      },
    };
    before?.close();
    before = new ContainerdSink({
      namespace: 'ns',
      courier: new GuardedCourier(caller, `unix://${path}`),
      ...{ address: '/c.sock', publishBinary: '/bin/containerd' },
      exec: () => assert.fail('no program is started'),
    });
    return before;
  };
  return { worker };
}

const event = (topic: string, nanos = 1) => ({
  timestamp: { seconds: 1n, nanos },
  topic,
  typeUrl: 'containerd.events.TaskExit',
  value: Buffer.from([10, 3, 119, 101, 98]),
});

/** Nobody hears how that ends: the process does before. */
const lost = (published: Promise<void>): void => void published.catch(() => undefined);

suite('events of workers that are killed', () => {
  test('what one has sent and containerd acknowledges late is not sent again by the next, which hears of it', async (t) => {
    const { path, came, held, arrived } = await containerd(t);
    const { worker } = guard(t, path);
    lost(worker().publish(event('/a')));
    await arrived(1);
    const next = worker().publish(event('/a'));
    held[0]?.answer();
    await next;
    assert.deepEqual(came, ['/a']);
  });

  test('nor what was acknowledged when the worker had no time to write that down; what follows is sent', async (t) => {
    const { path, came, held, arrived } = await containerd(t);
    const { worker } = guard(t, path);
    const first = worker().publish(event('/a'));
    await arrived(1);
    held[0]?.answer();
    await first;
    const second = worker();
    await second.publish(event('/a'));
    assert.deepEqual(came, ['/a']);
    lost(second.publish(event('/a', 2))); // as it looks, but at another time
    await arrived(2);
    assert.deepEqual(came, ['/a', '/a']);
  });

  test('one without an answer is waited for as long as the connection stands, by however many workers', async (t) => {
    const { path, came, held, arrived } = await containerd(t);
    const { worker } = guard(t, path);
    for (let i = 0; i < 4; i++) lost(worker().publish(event('/a')));
    await arrived(1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const last = worker().publish(event('/a'));
    held[0]?.answer();
    await last;
    assert.deepEqual(came, ['/a']);
  });

  test('what containerd refuses is tried again, over the same connection', async (t) => {
    const { path, came, held, arrived } = await containerd(t);
    const published = guard(t, path).worker().publish(event('/a'));
    await arrived(1);
    held[0]?.refuse();
    await arrived(2);
    held[1]?.answer();
    await published;
    assert.deepEqual(came, ['/a', '/a']);
  });

  test('what was on its way when containerd ended is sent to the next one, as nobody knows whether it had arrived', async (t) => {
    const { path, came, held, arrived, restart } = await containerd(t);
    const { worker } = guard(t, path);
    const published = worker().publish(event('/a'));
    await arrived(1);
    await restart();
    await arrived(2);
    held[1]?.answer();
    await published;
    assert.deepEqual(came, ['/a', '/a']);
  });
});
