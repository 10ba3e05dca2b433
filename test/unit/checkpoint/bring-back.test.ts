import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bringBack } from '../../../src/checkpoint/rewind/bring-back.ts';
import type { Host } from '../../../src/checkpoint/host.ts';
import { encodeSpec } from '../../../src/checkpoint/spec.ts';
import { NotFound } from '../../../src/errors.ts';
import { Container } from '../../../src/proto/gen/containerd/containers.ts';
import { Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { Process, Status } from '../../../src/proto/gen/containerd/task_types.ts';
import type { Any } from '../../../src/proto/gen/google/protobuf/any.ts';

const record = Container.fromPartial({
  id: 'web',
  snapshotter: 'stasis',
  snapshotKey: 'web',
  spec: encodeSpec({ ociVersion: '1.0.2' }),
});
const task = Process.fromPartial({ id: 'web', pid: 7, status: Status.RUNNING });

/** A containerd with one task, which ends when it is waited for. `images`: what the tasks made since came from. */
function fakeContainerd(first: Process | undefined): {
  host: Pick<Host, 'containerd'>;
  images: string[];
  status: () => Status | undefined;
} {
  let present = first;
  const images: string[] = [];
  const found = async (): Promise<Process> => {
    if (present === undefined) throw new NotFound('no task');
    return present;
  };
  const tasks = {
    get: async () => ({ process: await found() }),
    kill: async () => ({}),
    resume: async () => ({}),
    wait: async () => {
      present = { ...(await found()), status: Status.STOPPED };
      return {};
    },
    delete: async () => {
      assert.equal((await found()).status, Status.STOPPED, 'a task that runs cannot be deleted');
      present = undefined;
      return {};
    },
    create: async ({ options }: { options: Any | undefined }) => {
      assert.equal(present, undefined, 'a container has one task');
      images.push(options === undefined ? '' : Options.decode(options.value).criuImagePath);
      present = Process.fromPartial({ id: 'web', pid: 8, status: Status.CREATED });
      return { pid: 8 };
    },
    start: async () => {
      present = { ...(await found()), status: Status.RUNNING };
      return { pid: 8 };
    },
  };
  const snapshots = { mounts: async () => ({ mounts: [] }) };
  const client = {
    namespace: 'default',
    tasks,
    snapshots,
    containers: { get: async () => ({ container: record }) },
  };
  const containerd = { namespace: () => client };
  return {
    host: { containerd } as unknown as Pick<Host, 'containerd'>,
    images,
    status: () => present?.status,
  };
}

test('a task ended with its image comes back, though containerd still calls it running', async () => {
  const image = mkdtempSync(join(tmpdir(), 'stasis-image-'));
  try {
    for (const status of [Status.RUNNING, Status.STOPPED]) {
      const { host, images, status: now } = fakeContainerd({ ...task, status });
      await bringBack(host, { namespace: 'default', record, task }, image);
      assert.deepEqual(images, [image]);
      assert.equal(now(), Status.RUNNING);
    }
  } finally {
    rmSync(image, { recursive: true });
  }
});

test('a task without an image that was not stopped after all is not started a second time', async () => {
  const { host, images } = fakeContainerd(task);
  await bringBack(host, { namespace: 'default', record, task }, undefined);
  assert.deepEqual(images, []);
});

test('a task without an image that was stopped, or is gone, starts anew', async () => {
  for (const former of [{ ...task, status: Status.STOPPED }, undefined]) {
    const { host, images } = fakeContainerd(former);
    await bringBack(host, { namespace: 'default', record, task }, undefined);
    assert.deepEqual(images, ['']);
  }
});
