// A disk that does not answer, and requests that name a path on it: the containers of all others are served as ever.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { defaultSpec } from '../../../src/cli/default-spec.ts';
import { CheckpointOptions, Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { TaskDefinition, type CreateTaskRequest } from '../../../src/proto/gen/containerd/task.ts';
import { Client, type ServiceClient } from '../../../ttrpc/index.ts';
import { shimSocket } from '../shim/shims.ts';
import { removeContainer, startContainer, statusOf, uniqueName } from '../support/container.ts';
import { slowness } from '../support/slowness.ts';
import { importImage, stack, until } from '../support/stack.ts';
import { assertNewOnesAreMade, assertServed } from '../support/served.ts';
import { StallingDisk } from '../support/stalling-disk.ts';

/** Whatever happens, the disk has to answer again: with it hanging, no stack comes down. */
const LIMIT = { timeout: 60_000 * slowness };

const [victim, other] = [uniqueName('hung'), uniqueName('hung')];
let folder: string;
let disk: StallingDisk;
let client: Client;
let tasks: ServiceClient<TaskDefinition>;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/hung-'));
  disk = await StallingDisk.make();
  // A long sleep would end with the checkpoint.
  for (const name of [victim, other])
    await startContainer(name, ['/bin/sh', '-c', 'while sleep 1; do :; done']);
  client = await Client.connect(shimSocket(other));
  tasks = client.service(TaskDefinition);
});
after(async () => {
  await disk.go();
  client.close();
  await removeContainer(victim, other);
  await disk.remove();
  rmSync(folder, { recursive: true });
});

const any = (typeUrl: string, value: Uint8Array) => ({ typeUrl, value: Buffer.from(value) });

interface Hung {
  readonly what: string;
  readonly id: string;
  readonly ended: Promise<unknown>;
  settled: boolean;
}
const hung: Hung[] = [];

function begin(what: string, id: string, call: Promise<unknown>): void {
  const one: Hung = { what, id, ended: call.catch((error: unknown) => error), settled: false };
  void one.ended.then(() => (one.settled = true));
  hung.push(one);
}

function create(what: string, change: (id: string) => Partial<CreateTaskRequest>): void {
  const id = uniqueName('hung');
  const bundle = join(folder, id);
  mkdirSync(join(bundle, 'rootfs'), { recursive: true });
  const spec = defaultSpec(['/bin/true']);
  writeFileSync(
    join(bundle, 'config.json'),
    JSON.stringify({ ...spec, linux: { ...spec.linux, cgroupsPath: `/hung/${id}` } }),
  );
  const request: CreateTaskRequest = {
    ...{ id, bundle, rootfs: [], terminal: false, stdin: '', stdout: '', stderr: '', checkpoint: '' },
    ...{ parentCheckpoint: '', options: undefined },
    ...change(id),
  };
  begin(what, id, tasks.create(request));
}

/** Not a mount: one that hangs has sync(2) wait too, and with it zfs-fuse, for everybody on the machine. */
function createThere(): void {
  create('a log file there', (id) => ({ stdout: `file://${disk.mountPoint}/logs/${id}` }));
}

async function isServed(): Promise<void> {
  await assertServed(other);
  assert.equal(await statusOf(victim), 'RUNNING', 'its checkpoint waits, and it is asked all the same');
}

test(
  'a checkpoint, a restore and logs on a disk that hangs: others are served, and new ones made',
  LIMIT,
  async () => {
    const saved = join(folder, 'saved');
    await tasks.checkpoint({ id: victim, path: saved, options: undefined });
    await disk.stall();
    const checkpoint = any(
      'containerd.runc.v1.CheckpointOptions',
      CheckpointOptions.encode(
        CheckpointOptions.fromPartial({ imagePath: join(disk.mountPoint, 'new/image') }),
      ).finish(),
    );
    begin('a checkpoint there', victim, tasks.checkpoint({ id: victim, path: '', options: checkpoint }));
    create('a restore with its log there', () => {
      const options = Options.fromPartial({
        criuImagePath: saved,
        criuWorkPath: join(disk.mountPoint, 'new/work'),
      });
      return { options: any('containerd.runc.v1.Options', Options.encode(options).finish()) };
    });
    for (let i = 0; i < 3; i++) createThere(); // each opens two

    await isServed();
    await assertNewOnesAreMade();
    assert.deepEqual(
      hung.filter(({ settled }) => settled).map(({ what }) => what),
      [],
    );
  },
);

test('more of them than there are threads: what needs no disk is served', LIMIT, async () => {
  for (let i = 0; i < 20; i++) createThere();
  await isServed();
  assert.deepEqual(
    hung.filter(({ settled }) => settled).map(({ what }) => what),
    [],
  );
});

test('when the disk answers again all come to an end, and leave nothing', LIMIT, async () => {
  await disk.go();
  await until(
    'the end of all',
    () => (hung.every(({ settled }) => settled) ? true : undefined),
    60_000 * slowness,
  );
  for (const { id } of hung.filter(({ id }) => id !== victim)) {
    await tasks.kill({ id, execId: '', signal: 9, all: true }).catch(() => undefined);
    await tasks.delete({ id, execId: '' }).catch(() => undefined);
    await assert.rejects(tasks.state({ id, execId: '' }), /not found|does not exist/i);
  }
  assert.equal(await statusOf(victim), 'RUNNING');
  await isServed();
});
