import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Queue } from '../../../shim/container/queue.ts';
import { runWithoutSessions, type Sessions } from '../../../shim/container/sessions.ts';
import { Aborted, Cancelled } from '../../../src/errors.ts';
import { SessionPolicy } from '../../../src/proto/gen/stasis/engine.ts';

/** A container whose sessions end when `end` is called with their id. */
function containerWith(...ids: string[]): Sessions & { end(id: string): void; begin(id: string): void } {
  const execs = new Map<string, Sessions['execs'] extends ReadonlyMap<string, infer E> ? E : never>();
  const ends = new Map<string, () => void>();
  const begin = (id: string): void => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const state = { name: 'running' };
    execs.set(id, {
      ...{ id, pid: 2 ** 22 + 1, state },
      wait: async (signal) => {
        await Promise.race([
          promise,
          new Promise((_, reject) =>
            signal.addEventListener('abort', () => reject(new Error('aborted')), { once: true }),
          ),
        ]);
      },
    });
    ends.set(id, () => {
      state.name = 'stopped';
      resolve();
    });
  };
  ids.forEach(begin);
  const frozen = async (): Promise<boolean> => false;
  const unused = (): never => assert.fail('nobody may freeze it');
  return {
    ...{ id: 'web', queue: new Queue(), execs, begin, end: (id: string) => ends.get(id)?.() },
    accounting: {
      freezer: () => ({ freeze: unused, thaw: unused, isFrozen: frozen }),
      pids: async () => [],
    },
  };
}

const terms = (policy: SessionPolicy, signal = new AbortController().signal, timeoutMs = 60_000) => ({
  ...{ policy, signal, timeoutMs },
});
const { SESSIONS_LEAVE, SESSIONS_REFUSE, SESSIONS_WAIT, SESSIONS_KILL } = SessionPolicy;

test('a session is left alone, or refused by its name', async () => {
  const web = containerWith('shell');
  assert.equal(await runWithoutSessions(web, terms(SESSIONS_LEAVE), async () => 'done'), 'done');
  const never = (): never => assert.fail('a session runs');
  await assert.rejects(runWithoutSessions(web, terms(SESSIONS_REFUSE), never), (error) => {
    assert.ok(error instanceof Aborted);
    assert.match(error.message, /session shell of web runs/);
    return true;
  });
  web.end('shell');
  assert.equal(await runWithoutSessions(web, terms(SESSIONS_REFUSE), async () => 'done'), 'done');
});

test('one that begins while others are waited for, or just before the turn comes, is waited for as well', async () => {
  const web = containerWith('first');
  let ran = false;
  const waiting = runWithoutSessions(web, terms(SESSIONS_WAIT), async () => {
    ran = true;
  });
  await turn();
  await web.queue.run(async () => web.begin('second')); // the queue is free meanwhile
  const late = web.queue.run(async () => {
    web.end('second');
    await turn();
    web.begin('third');
  });
  web.end('first');
  await late;
  for (let n = 0; n < 5; n++) await turn();
  assert.equal(ran, false);
  web.end('third');
  await waiting;
  assert.ok(ran);
});

test('waiting ends with the caller, and with the time for it', async () => {
  const web = containerWith('shell');
  const never = (): never => assert.fail('a session runs');
  const caller = new AbortController();
  const waiting = runWithoutSessions(web, terms(SESSIONS_WAIT, caller.signal), never);
  await turn();
  caller.abort();
  await assert.rejects(waiting, Cancelled);
  const hurried = terms(SESSIONS_WAIT, new AbortController().signal, 5);
  await assert.rejects(runWithoutSessions(web, hurried, never), /shell of web has not ended within 0.005 s/);
});

test('nothing is frozen where there is nobody to kill', async () => {
  assert.equal(await runWithoutSessions(containerWith(), terms(SESSIONS_KILL), async () => 'done'), 'done');
});
