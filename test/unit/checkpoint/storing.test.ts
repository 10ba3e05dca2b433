import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { CheckpointEntry } from '../../../src/checkpoint/entry.ts';
import type { Host } from '../../../src/checkpoint/host.ts';
import { Storing, untilInstant } from '../../../src/checkpoint/storing.ts';
import { InvalidArgument } from '../../../src/errors.ts';

const entry = { id: 'one-1', namespace: 'default', container: 'web', name: 'one' } as CheckpointEntry;

/** As much of a host as storing needs; what is left for later is not waited for here. */
function aHost(): Host {
  const later = (_: string, work: Promise<unknown>): void => void work.catch(() => undefined);
  return { storing: new Storing(), later } as Partial<Host> as Host;
}

test('the caller is answered at the instant; what it does afterwards does not undo the checkpoint', async () => {
  const host = aHost();
  const stored = Promise.withResolvers<CheckpointEntry[]>();
  const caller = new AbortController();
  let seen: AbortSignal | undefined;
  const answer = await untilInstant(host, { exit: false, signal: caller.signal }, ({ signal, atInstant }) => {
    seen = signal;
    setImmediate(() => atInstant([entry]));
    return stored.promise;
  });
  assert.deepEqual(answer, [entry]);
  assert.equal(host.storing.find('default', 'web')?.error, undefined);
  assert.equal(host.storing.all().length, 1);
  caller.abort();
  assert.equal(seen?.aborted, false);
  const waited = host.storing.wait('default', 'web', new AbortController().signal);
  stored.resolve([entry]);
  await waited;
  await turn();
  assert.deepEqual(host.storing.all(), [], 'what is whole is the catalog’s');
});

test('until the instant the caller can cancel it, and a failure is its own', async () => {
  const host = aHost();
  const caller = new AbortController();
  const taking = untilInstant(host, { exit: false, signal: caller.signal }, async ({ signal }) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    throw signal.reason as Error;
  });
  caller.abort(new Error('the caller left'));
  await assert.rejects(taking, /the caller left/);
  assert.deepEqual(host.storing.all(), []);
});

test('a failure to store is told to who waits and stays until a later checkpoint is whole', async () => {
  const host = aHost();
  const stored = Promise.withResolvers<CheckpointEntry[]>();
  const { signal } = new AbortController();
  await untilInstant(host, { exit: false, signal }, async ({ atInstant }) => {
    atInstant([entry]);
    return stored.promise;
  });
  const waited = host.storing.wait('default', 'web', signal);
  const left = AbortSignal.abort(new Error('tired of waiting'));
  await assert.rejects(host.storing.wait('default', 'web', left), /tired/);
  stored.reject(new Error('the pool is full'));
  await assert.rejects(waited, /full/);
  assert.match(String(host.storing.find('default', 'web')?.error), /full/);
  await assert.rejects(host.storing.wait('default', 'web', signal), /full/);
  host.storing.forget('default', 'web');
  assert.equal(host.storing.find('default', 'web'), undefined);
});

test('a container that ends with its checkpoint has to be waited for', async () => {
  const { signal } = new AbortController();
  await assert.rejects(
    untilInstant(aHost(), { exit: true, signal }, () => assert.fail('nothing is taken')),
    InvalidArgument,
  );
});
