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

test('a client’s FIFO stays with the guard over as many workers as it takes until its exec is started', () => {
  const client = pipe();
  const dropped: string[] = [];
  const keeper = {
    hold: async () => undefined,
    open: () => assert.fail('nothing is started'),
    take: (name: string) => (name === `${PREFIX}out-to` ? client.write : undefined),
    drop: (names: readonly string[]) => void dropped.push(...names),
  };
  const context = { kept: { keeper, readiness: { forget: () => undefined } }, namespace: 'default' };
  const execs = new Execs({
    containerId: 'web',
    bundle: '/nowhere',
    context: { socketFolder: '/nowhere' },
    runtime: {},
    streams: new Streams(context as unknown as ShimContext, 'web', Options.fromPartial({})),
    order: { execStarting: () => assert.fail('it does not run') },
    init: () => 1,
    save: () => undefined,
  } as unknown as ExecsParts);
  const request = ExecProcessRequest.fromPartial({
    id: 'web',
    execId: 'e',
    spec: { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process', value: Buffer.from('{}') },
    stdout: '/run/fifo/e-stdout',
  });
  // As the worker writes it down that has found that the runtime of the one before it made no process.
  const left = {
    execs: [{ id: 'e', pid: 0, state: 'created' }],
    takeUp: {
      execs: [{ id: 'e', request: encodeExec(request), starting: false, startTime: '' }],
      deleted: [],
    },
  } as unknown as TaskRecord;
  const expectation = { claim: () => assert.fail('it does not run'), close: () => undefined };
  assert.deepEqual(execs.takeUp(left, expectation), []);
  assert.equal(execs.processes.get('e')?.state.name, 'created');
  assert.deepEqual(dropped, []);
});
