// The types are the interface: what must not compile is marked as an error, and an error that is missing fails
// the typecheck.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import type { StateResponse } from '../../../src/proto/gen/containerd/task.ts';
import { Server } from '../../../ttrpc/index.ts';
import type { Client } from '../../../ttrpc/index.ts';
import { TestDefinition, handlers } from './fixture.ts';

type KeyValue = { key: string; value: string };

test('a service with a missing handler is refused by the compiler, and by the server', () => {
  const { echo: _, ...rest } = handlers();
  // @ts-expect-error echo is missing
  assert.throws(() => new Server().register(TestDefinition, rest), /no handler for echo/);
});

test('a handler of the wrong type does not compile', () => {
  const server = new Server();
  // @ts-expect-error the request of Echo has no number in it
  server.register(TestDefinition, { ...handlers(), echo: async (request: { key: number }) => request });
  // @ts-expect-error the response lacks a field
  server.register(TestDefinition, { ...handlers(), echo: async () => ({ key: '' }) }, { fullName: 'b' });
  // @ts-expect-error a unary method cannot stream
  server.register(TestDefinition, { ...handlers(), echo: handlers().list }, { fullName: 'c' });
  // @ts-expect-error a streaming method cannot be unary
  server.register(TestDefinition, { ...handlers(), list: handlers().echo }, { fullName: 'd' });
  // @ts-expect-error a stream of requests is not one request
  server.register(TestDefinition, { ...handlers(), collect: handlers().echo }, { fullName: 'e' });
  // @ts-expect-error all of the Task service is missing
  assert.throws(() => server.register(TaskDefinition, {}), TypeError);
});

test('a client has the methods of its definition and their types', () => {
  const compileOnly = async (client: Client) => {
    const test = client.service(TestDefinition);
    const unary: KeyValue = await test.echo({ key: '', value: '' });
    const stream: AsyncIterable<KeyValue> = test.list({ key: '', value: '' });
    const collected: Promise<KeyValue> = test.collect([{ key: '', value: '' }]);
    const state: StateResponse = await client.service(TaskDefinition).state({ id: 'web', execId: '' });
    // @ts-expect-error there is no such method
    assert.equal(test.nothing, undefined);
    // @ts-expect-error a field is missing
    await test.echo({ key: '' });
    // @ts-expect-error a request stream takes messages of its type
    await test.collect([1]);
    return [unary, stream, collected, state];
  };
  assert.equal(typeof compileOnly, 'function');
});
