import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Host } from '../../../src/checkpoint/host.ts';
import { isRemoved, removeOrphan } from '../../../src/checkpoint/removed.ts';
import type { NamespaceClient } from '../../../src/containerd/client.ts';
import { AlreadyExists, NotFound } from '../../../src/errors.ts';
import { Container } from '../../../src/proto/gen/containerd/containers.ts';
import { Process, Status } from '../../../src/proto/gen/containerd/task_types.ts';

const record = Container.fromPartial({ id: 'web', createdAt: { seconds: 5n, nanos: 7 } });

/** A containerd that looks its container up before it answers of a task, as the real one does. */
function fakeContainerd(
  container: Container | undefined,
  task: Process | undefined,
): {
  client: NamespaceClient;
  host: Pick<Host, 'containerd'>;
  left: () => (string | undefined)[];
} {
  const found = (): Process => {
    if (container === undefined) throw new NotFound('container "web" in namespace "default": not found');
    if (task === undefined) throw new NotFound('task web not found');
    return task;
  };
  const client = {
    namespace: 'default',
    containers: {
      get: async () => {
        if (container === undefined) throw new NotFound('no container');
        return { container };
      },
      create: async (request: { container: Container }) => {
        if (container !== undefined) throw new AlreadyExists('container "web": already exists');
        container = request.container;
        return {};
      },
      delete: async () => {
        container = undefined;
        return {};
      },
    },
    tasks: {
      list: async () => ({ tasks: task === undefined ? [] : [task] }),
      get: async () => ({ process: found() }),
      kill: async () => {
        task = { ...found(), status: Status.STOPPED };
        return {};
      },
      resume: async () => ({}),
      wait: async () => ({}),
      delete: async () => {
        assert.ok(found().pid === 0 || found().status === Status.STOPPED, 'it runs');
        task = undefined;
        return {};
      },
    },
  } as unknown as NamespaceClient;
  const host = { containerd: { namespace: () => client } } as unknown as Pick<Host, 'containerd'>;
  return { client, host, left: () => [container?.id, task?.id] };
}

test('a task whose container is gone is removed, and no record is left', async () => {
  for (const [pid, status] of [
    [0, Status.CREATED],
    [7, Status.CREATED],
    [7, Status.RUNNING],
    [7, Status.STOPPED],
  ] as const) {
    const { host, left } = fakeContainerd(undefined, Process.fromPartial({ id: 'web', pid, status }));
    await removeOrphan(host, 'default', record);
    assert.deepEqual(left(), [undefined, undefined]);
  }
});

test('no record is made where there is no such task, and the task of a new container is left alone', async () => {
  const none = fakeContainerd(undefined, undefined);
  await removeOrphan(none.host, 'default', record);
  assert.deepEqual(none.left(), [undefined, undefined]);
  const task = Process.fromPartial({ id: 'web', pid: 7, status: Status.RUNNING });
  const anew = fakeContainerd(Container.fromPartial({ id: 'web' }), task);
  await removeOrphan(anew.host, 'default', record);
  assert.deepEqual(anew.left(), ['web', 'web']);
});

test('a container is another one when it was made at another time', async () => {
  const removed = (now: Container | undefined): Promise<boolean> =>
    isRemoved(fakeContainerd(now, undefined).client, record);
  assert.equal(await removed(undefined), true);
  assert.equal(await removed({ ...record, labels: { changed: 'yes' } }), false);
  assert.equal(await removed({ ...record, createdAt: { seconds: 5n, nanos: 8 } }), true);
});
