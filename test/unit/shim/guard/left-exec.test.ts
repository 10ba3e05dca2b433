import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Execs, type ExecsParts } from '../../../../shim/container/execs.ts';
import type { TaskRecord } from '../../../../shim/container/record.ts';
import { Streams } from '../../../../shim/container/streams.ts';
import { encodeExec } from '../../../../shim/container/take-up.ts';
import type { ShimContext } from '../../../../shim/container/context.ts';
import { pipe } from '../../../../src/sys/descriptor.ts';
import { Options } from '../../../../src/proto/gen/containerd/runc_options.ts';
import { ExecProcessRequest } from '../../../../src/proto/gen/containerd/task.ts';

const PREFIX = 'io/web/e/';

type Given = Partial<Pick<ExecsParts, 'order'>> & { readonly take?: (name: string) => number | undefined };

/** A task's execs in a worker that follows another. @param dropped gets what the guard is told to let go of */
function execsOf({ order, take = () => undefined }: Given, dropped: string[] = []): Execs {
  const keeper = {
    hold: async () => undefined,
    open: () => assert.fail('nothing is started'),
    take,
    drop: (names: readonly string[]) => void dropped.push(...names),
  };
  const context = { kept: { keeper, readiness: { forget: () => undefined } }, namespace: 'default' };
  return new Execs({
    containerId: 'web',
    bundle: '/nowhere',
    context: { socketFolder: '/nowhere', reaper: { expect: () => assert.fail('nothing is started') } },
    runtime: {},
    streams: new Streams(context as unknown as ShimContext, 'web', Options.fromPartial({})),
    order: order ?? { execStarting: () => assert.fail('it does not run') },
    init: () => 1,
    save: () => undefined,
  } as unknown as ExecsParts);
}

/** What the worker before has written down. */
function leftOf(
  exec: { pid: number; state: string },
  takeUp: { starting: boolean; startTime: string },
  stdout = '',
): TaskRecord {
  const request = ExecProcessRequest.fromPartial({
    id: 'web',
    execId: 'e',
    spec: { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process', value: Buffer.from('{}') },
    stdout,
  });
  return {
    execs: [{ id: 'e', ...exec }],
    takeUp: { execs: [{ id: 'e', request: encodeExec(request), ...takeUp }], deleted: [] },
  } as unknown as TaskRecord;
}

const none = { claim: () => assert.fail('it does not run'), close: () => undefined };

test('a client’s FIFO stays with the guard over as many workers as it takes until its exec is started', () => {
  const client = pipe();
  const dropped: string[] = [];
  const take = (name: string): number | undefined => (name === `${PREFIX}out-to` ? client.write : undefined);
  const execs = execsOf({ take }, dropped);
  // As the worker writes it down that has found that the runtime of the one before it made no process.
  const left = leftOf({ pid: 0, state: 'created' }, { starting: false, startTime: '' }, '/run/fifo/e-stdout');
  assert.deepEqual(execs.takeUp(left, none), []);
  assert.equal(execs.processes.get('e')?.state.name, 'created');
  assert.deepEqual(dropped, []);
});

test('a start that was under way is so for the worker after the next as well, until one has found what came of it', () => {
  const execs = execsOf({});
  const left = leftOf({ pid: 0, state: 'created' }, { starting: true, startTime: '' });
  assert.deepEqual(execs.takeUp(left, none), ['e']);
  assert.equal(execs.describe().execs[0]?.starting, true, 'as it is written down meanwhile');
  execs.finish('e', none);
  assert.equal(execs.describe().execs[0]?.starting, false);
});

test('an exec that runs is not lost where it was asked once more to start as the worker ended', async () => {
  let [running, claimed] = [0, 0];
  const order = { execStarting: () => running++, execEnded: () => running-- };
  const execs = execsOf({ order: order as unknown as ExecsParts['order'] });
  const left = leftOf({ pid: 7, state: 'running' }, { starting: true, startTime: '5' });
  const expectation = { claim: (pid: number) => void (claimed = pid), close: () => undefined };
  assert.deepEqual(execs.takeUp(left, expectation), []);
  const process = execs.processes.get('e') ?? assert.fail('it is not known');
  assert.deepEqual([process.pid, claimed, running], [7, 7, 1]);
  // Nor is anything written down of a start that is refused.
  await assert.rejects(execs.start(process), /cannot start a running process/);
  assert.equal(running, 1);
});
