import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Host } from '../../../src/checkpoint/host.ts';
import { KeyedMutex } from '../../../src/checkpoint/locks.ts';
import { newNote, RewindNotes } from '../../../src/checkpoint/rewind/notes.ts';
import { encodeSpec } from '../../../src/checkpoint/spec.ts';
import { imageOfStage } from '../../../src/checkpoint/staging.ts';
import { finishRewinds } from '../../../src/checkpoint/rewind/unfinished.ts';
import { NotFound, Unavailable } from '../../../src/errors.ts';
import { silent } from '../../../src/log.ts';
import { Container } from '../../../src/proto/gen/containerd/containers.ts';
import { Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { Process, Status } from '../../../src/proto/gen/containerd/task_types.ts';
import type { Any } from '../../../src/proto/gen/google/protobuf/any.ts';

let folder: string;
before(() => (folder = mkdtempSync(join(tmpdir(), 'stasis-rewinds-'))));
after(() => rmSync(folder, { recursive: true }));

/** No process has this number. */
const GONE = 4_194_305;

const recordOf = (id: string): Container =>
  Container.fromPartial({
    id,
    snapshotter: 'stasis',
    snapshotKey: id,
    spec: encodeSpec({ ociVersion: '1.0.2' }),
    createdAt: { seconds: 5n, nanos: 7 },
  });
const former = Process.fromPartial({ pid: GONE, status: Status.RUNNING });
const running = (id: string): Process => Process.fromPartial({ id, pid: 9, status: Status.RUNNING });

let sequence = 0;

/** A host with containers and the tasks that they have now. What is done to them is told in `done`. */
function fakeHost(names: readonly string[], present: readonly Process[], isAway = false) {
  const runDir = join(folder, String(sequence++));
  const tasks = new Map(present.map((task) => [task.id, task]));
  const done: string[] = [];
  const found = (id: string): Process => {
    const task = tasks.get(id);
    if (task === undefined) throw new NotFound('no task');
    return task;
  };
  const client = {
    namespace: 'default',
    containers: {
      get: async ({ id }: { id: string }) => {
        if (!names.includes(id)) throw new NotFound('no container');
        return { container: recordOf(id) };
      },
    },
    snapshots: { mounts: async () => ({ mounts: [] }) },
    tasks: {
      list: async () => ({ tasks: [...tasks.values()] }),
      get: async ({ containerId: id }: { containerId: string }) => ({ process: found(id) }),
      kill: async () => ({}),
      resume: async () => ({}),
      wait: async ({ containerId: id }: { containerId: string }) => {
        tasks.set(id, { ...found(id), status: Status.STOPPED });
        return {};
      },
      delete: async ({ containerId: id }: { containerId: string }) => {
        found(id);
        tasks.delete(id);
        done.push(`ended ${id}`);
        return {};
      },
      create: async ({ containerId: id, options }: { containerId: string; options: Any | undefined }) => {
        const image = options === undefined ? 'nothing' : Options.decode(options.value).criuImagePath;
        done.push(`started ${id} from ${image.replace(`${runDir}/`, '')}`);
        tasks.set(id, Process.fromPartial({ id, pid: 10, status: Status.CREATED }));
        return { pid: 10 };
      },
      start: async ({ containerId: id }: { containerId: string }) => {
        tasks.set(id, { ...found(id), status: Status.RUNNING });
        return { pid: 10 };
      },
    },
  };
  const rewinds = new RewindNotes(runDir);
  const host = {
    containerd: { namespace: () => client },
    identify: async () => {
      if (isAway) throw new Unavailable('containerd does not answer');
      return 'uuid';
    },
    locks: new KeyedMutex(),
    log: silent,
    rewinds,
    fills: { forget: () => undefined },
    store: {
      undoRewind: async (name: string, dataset: string) => void done.push(`${name} on ${dataset}`),
      releaseGeneration: () => undefined,
    },
  } as unknown as Host;
  /** As a rewind that dies leaves it. */
  const cutOff = (
    id: string,
    options: { group?: string; image?: 'whole' | 'part'; ended?: boolean; task?: Process } = {},
  ): string => {
    const { group = id, image, ended = true, task = former } = options;
    const stage = join(runDir, `stage-${id}`);
    mkdirSync(imageOfStage(stage), { recursive: true });
    const files = image === 'whole' ? ['pstree.img', 'core-1.img', 'mm-1.img', 'descriptors.json'] : [];
    if (image === 'whole') files.push('inventory.img');
    if (image !== undefined)
      for (const name of ['pagemap-1.img', ...files]) writeFileSync(join(imageOfStage(stage), name), '');
    const disk = { name: `1/${id}`, dataset: `pool/${id}` };
    using open = rewinds.open({
      ...newNote({ namespace: 'default', record: recordOf(id), task }, group, disk),
      stage,
    });
    open.change({ ended });
    return stage;
  };
  const finish = async (): Promise<void> => finishRewinds(host, await rewinds.left());
  return { cutOff, finish, done, rewinds };
}

test('a task that was ended with its image comes back on its disk, and nothing of the rewind stays', async () => {
  for (const ended of [true, false]) {
    const { cutOff, finish, done, rewinds } = fakeHost(['web'], []);
    const stage = cutOff('web', { image: 'whole', ended });
    await finish();
    assert.deepEqual(done, ['1/web on pool/web', 'started web from stage-web/image']);
    assert.deepEqual(await rewinds.left(), []);
    assert.equal(existsSync(stage), false);
  }
});

test('what was restored, and runs, stays', async () => {
  const { cutOff, finish, done, rewinds } = fakeHost(['web'], [running('web')]);
  const stage = cutOff('web', { image: 'whole' });
  await finish();
  assert.deepEqual(done, []);
  assert.deepEqual(await rewinds.left(), []);
  assert.equal(existsSync(stage), false);
});

test('what ended by itself before the rewind ended it keeps its disk and is left alone; what a rewind ended without an image starts anew', async () => {
  const itself = fakeHost(['web'], []);
  itself.cutOff('web', { image: 'part', ended: false });
  await itself.finish();
  assert.deepEqual(itself.done, ['1/web on pool/web']);
  const since = fakeHost(['web'], [{ ...running('web'), pid: GONE - 1 }]);
  since.cutOff('web', { ended: false });
  await since.finish();
  assert.deepEqual(since.done, [], 'what somebody has started since has the disk that it was given');
  const late = fakeHost(['web'], [{ ...running('web'), pid: GONE }]);
  late.cutOff('web', { ended: false });
  await late.finish();
  assert.deepEqual(late.done, ['1/web on pool/web'], 'containerd has not heard yet that it ended');
  const ended = fakeHost(['web'], []);
  ended.cutOff('web');
  await ended.finish();
  assert.deepEqual(ended.done, ['1/web on pool/web', 'started web from nothing']);
});

test('where nothing ran only the disk goes back, and the ended task stays', async () => {
  const stopped = Process.fromPartial({ id: 'web', pid: GONE, status: Status.STOPPED });
  const { cutOff, finish, done } = fakeHost(['web'], [stopped]);
  cutOff('web', { task: stopped });
  await finish();
  assert.deepEqual(done, ['1/web on pool/web']);
});

test('those that were rewound as one go back as one, when all that was restored has ended', async () => {
  const { cutOff, finish, done } = fakeHost(['a', 'b'], [running('a')]);
  for (const id of ['a', 'b']) cutOff(id, { group: 'pod', image: 'whole' });
  await finish();
  assert.equal(done[0], 'ended a');
  assert.deepEqual(done.slice(1).sort(), [
    ...['1/a on pool/a', '1/b on pool/b'],
    ...['started a from stage-a/image', 'started b from stage-b/image'],
  ]);
});

test('a container that is gone does not come back', async () => {
  const { cutOff, finish, done, rewinds } = fakeHost([], []);
  cutOff('web', { image: 'whole' });
  await finish();
  assert.deepEqual(done, ['1/web on pool/web']); // which does nothing with a disk that is gone too
  assert.deepEqual(await rewinds.left(), []);
});

test('all is kept while containerd is away', async () => {
  const { cutOff, finish, rewinds } = fakeHost(['web'], [], true);
  const stage = cutOff('web', { image: 'whole' });
  await assert.rejects(finish(), /does not answer/);
  assert.equal((await rewinds.left()).length, 1);
  assert.equal(existsSync(stage), true);
});
