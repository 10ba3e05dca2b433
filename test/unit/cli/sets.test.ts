import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type CheckpointSetRequest,
  ExecSessions,
  type RestoreSetRequest,
  RestoreFailure,
  RestoreResult,
  type WaitRequest,
} from '../../../src/proto/gen/stasis/stasis.ts';
import { Code } from '../../../src/errors.ts';
import { aCheckpoint, against, type Handlers } from './harness.ts';

const set = (seen: CheckpointSetRequest[]): Partial<Handlers> => ({
  async *checkpointSet(request) {
    seen.push(request);
    for (const container of ['db', 'web']) {
      const value = { ...aCheckpoint({ name: 'nightly' }), container, setId: 'set-1' };
      yield { update: { $case: 'checkpoint', value }, warnings: [] };
    }
  },
});

test('several containers, a label or a pod make a set, and each member is told', async () => {
  const seen: CheckpointSetRequest[] = [];
  const named = await against(set(seen), ['checkpoint', 'web', 'db', '--name', 'nightly', '--no-wait']);
  await against(set(seen), ['checkpoint', '--label', 'app=shop', '--label', 'tier']);
  const quiet = await against(set(seen), [
    'checkpoint',
    '--pod',
    'p1',
    '-q',
    '--require-memory',
    '--exec-sessions',
    'wait',
  ]);
  const common = { namespace: 'default', exit: false, diskOnly: false };
  assert.deepEqual(seen, [
    {
      ...common,
      containers: ['web', 'db'],
      labels: [],
      pod: '',
      name: 'nightly',
      requireMemory: false,
      noWait: true,
      execSessions: ExecSessions.EXEC_SESSIONS_DEFAULT,
      precopy: undefined,
    },
    {
      ...common,
      containers: [],
      labels: ['app=shop', 'tier'],
      pod: '',
      name: '',
      requireMemory: false,
      noWait: false,
      execSessions: ExecSessions.EXEC_SESSIONS_DEFAULT,
      precopy: undefined,
    },
    {
      ...common,
      containers: [],
      labels: [],
      pod: 'p1',
      name: '',
      requireMemory: true,
      noWait: false,
      execSessions: ExecSessions.EXEC_SESSIONS_WAIT,
      precopy: undefined,
    },
  ]);
  assert.match(
    named.stdout,
    /^db@nightly: .*\nweb@nightly: .*\nset nightly: 2 containers of one instant, frozen 23\.4 ms at most\n$/,
  );
  assert.equal(quiet.stdout, 'nightly\n');
});

test('of several that are restored each has its line, and the exit code is that of the first failure', async () => {
  const seen: RestoreSetRequest[] = [];
  const handlers: Partial<Handlers> = {
    async *restoreSet(request) {
      seen.push(request);
      const result = RestoreResult.fromPartial({
        container: 'db',
        checkpoint: 'nightly',
        memory: true,
        pid: 7,
      });
      yield { update: { $case: 'result', value: result }, warnings: [] };
      const failure = RestoreFailure.fromPartial({
        ...{ container: 'web', checkpoint: 'nightly', code: Code.FailedPrecondition, message: 'no mount' },
        info: { reason: 'mount-missing', subject: 'web', cause: '', remedy: 'make it' },
      });
      yield { update: { $case: 'failure', value: failure }, warnings: [] };
    },
  };
  const outcome = await against(handlers, ['restore', '--set', 'nightly']);
  assert.deepEqual(seen, [
    { namespace: 'default', set: 'nightly', containers: [], checkpoint: '', requireMemory: false, paging: 0 },
  ]);
  assert.equal(outcome.code, 5);
  assert.match(
    outcome.stdout,
    /^db from nightly: memory and disk.*\nweb from nightly: failed, and is as it was: no mount\nset nightly: 1 restored, 1 failed\n$/,
  );
  assert.equal(outcome.stderr, 'stasis: 1 container of 2 not restored: web (no mount)\n  next: make it\n');
  const json = JSON.parse((await against(handlers, ['restore', 'db', 'web', '--json'])).stdout) as {
    restored: { container: string }[];
    failed: { container: string; error: { reason: string; exitCode: number } }[];
    error: { exitCode: number; reason: string };
  };
  assert.equal(json.restored[0]?.container, 'db');
  assert.deepEqual(json.failed[0]?.error, { ...json.failed[0]?.error, reason: 'mount-missing', exitCode: 5 });
  assert.deepEqual([json.error.exitCode, json.error.reason], [5, 'not-all-restored']);
});

test('wait prints what is whole', async () => {
  const seen: WaitRequest[] = [];
  const handlers: Partial<Handlers> = {
    async wait(request) {
      seen.push(request);
      return { checkpoint: aCheckpoint({ name: 'one' }) };
    },
  };
  const outcome = await against(handlers, ['wait', 'web', 'one']);
  assert.deepEqual(seen, [{ namespace: 'default', container: 'web', checkpoint: 'one' }]);
  assert.match(outcome.stdout, /^web@one: memory /);
});

test('what is being stored, and what could not be, is told as such', async () => {
  const list = (state: { storing?: boolean; storeError?: string }): Partial<Handlers> => ({
    async *checkpoint() {
      yield {
        update: { $case: 'checkpoint', value: { ...aCheckpoint({ name: 'one' }), ...state } },
        warnings: [],
      };
    },
  });
  assert.match(
    (await against(list({ storing: true }), ['checkpoint', 'web', '--no-wait'])).stdout,
    /, storing\n$/,
  );
  const failed = await against(list({ storeError: 'no room' }), ['checkpoint', 'web']);
  assert.match(failed.stdout, /, not stored: no room\n$/);
});
