// Our shim under the name of containerd's own: the default runtime of every client, with the options that clients send to
// that name alone.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { Containerd, type NamespaceClient } from '../../../src/containerd/client.ts';
import { CheckpointOptions, Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import {
  inside,
  pidOf,
  removeAll,
  removeContainer,
  startWriter,
  statusOf,
  uniqueName,
} from '../support/container.ts';
import { progress } from '../support/container.ts';
import { attempt, ctr, dev, image, importImage, must, runtime, stack, until } from '../support/stack.ts';
import { dropInRuntime, installDropIn, removeDropIn } from './drop-in.ts';
import { runDir, shimPid } from './shims.ts';
import { verbs } from './verbs.ts';

const SLEEP = ['/bin/sleep', '600'];
let folder: string;
let containerd: Containerd;
let api: NamespaceClient;

before(async () => {
  await importImage();
  await installDropIn();
  folder = mkdtempSync(join(stack.state, 'data/tmp/drop-in-'));
  containerd = new Containerd(stack.address);
  api = containerd.namespace('default');
});
after(async () => {
  containerd.close();
  rmSync(folder, { recursive: true });
  await removeDropIn();
});

function container(t: TestContext): string {
  const name = uniqueName('drop');
  t.after(() => removeAll(name));
  return name;
}

const detached = (name: string, ...flags: string[]) =>
  ctr('run', '-d', '--null-io', ...flags, image, name, ...SLEEP);

// Without a word about the runtime.
verbs([]);

test('the default runtime, its name and our own are one shim, and it is ours', async (t) => {
  const names = [container(t), container(t), container(t)] as const;
  await detached(names[0]);
  await detached(names[1], '--runtime', dropInRuntime);
  await detached(names[2], '--runtime', runtime);
  const pids = await Promise.all(names.map(shimPid));
  assert.equal(new Set(pids).size, 1);
  assert.match(readFileSync(`/proc/${pids[0]}/cmdline`, 'utf8'), /lib\/shim/);
});

test('ctr’s options choose the OCI runtime, its state folder and its cgroups', async (t) => {
  const [name, systemd] = [container(t), container(t)];
  const crun = process.env['STASIS_CRUN'] ?? '';
  const root = join(folder, 'root');
  await detached(name, '--runtime', dropInRuntime, '--runc-binary', crun, '--runc-root', root);
  const { pid } = JSON.parse(readFileSync(join(root, 'default', name, 'status'), 'utf8')) as { pid: number };
  assert.equal(pid, await pidOf(name));
  await removeContainer(name);
  assert.ok(!existsSync(join(root, 'default', name)));

  const missing = await attempt('ctr', [
    'run',
    '--rm',
    '--runc-binary',
    '/no/runc',
    image,
    name,
    '/bin/true',
  ]);
  assert.match(missing.stderr, /"\/no\/runc"/);

  // Where no systemd runs the runtime says so: it was told.
  const told = await attempt('ctr', ['run', '--rm', '--runc-systemd-cgroup', image, systemd, '/bin/true']);
  if (told.exitCode !== 0) assert.match(told.stderr, /systemd/);
});

test('ctr’s options of a checkpoint are followed: folders, and whether the task ends', async (t) => {
  const name = container(t);
  await startWriter(name, { flags: ['--runtime', dropInRuntime] });
  const [images, work] = [join(folder, `${name}-images`), join(folder, `${name}-work`)];
  await ctr('tasks', 'checkpoint', '--image-path', images, '--work-path', work, name);
  for (const file of [join(images, 'pstree.img'), join(work, 'dump.log')]) assert.ok(existsSync(file), file);
  await progress(name, 5);
  await ctr('tasks', 'checkpoint', '--exit', '--image-path', `${images}-2`, name);
  await until('its end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined));
});

test('the CRI’s options are followed: an empty message, and a checkpoint with a work folder alone', async (t) => {
  const name = container(t);
  // Not a sleep of busybox, which a checkpoint may end.
  const loop = ['/bin/sh', '-c', ': >/ready; while true; do sleep 0.1; done'];
  await ctr('containers', 'create', '--runtime', dropInRuntime, '--', image, name, ...loop);
  const { mounts } = await api.snapshots.mounts({ snapshotter: 'stasis', key: name });
  const streams = { stdin: '', stdout: '', stderr: '', terminal: false };
  const value = Buffer.from(Options.encode(Options.decode(new Uint8Array())).finish());
  await api.tasks.create({
    ...{ containerId: name, rootfs: mounts, ...streams, checkpoint: undefined, runtimePath: '' },
    options: { typeUrl: 'containerd.runc.v1.Options', value },
  });
  await api.tasks.start({ containerId: name, execId: '' });
  const ready = await inside(name, '/ready');
  await until('the script', () => (existsSync(ready) ? true : undefined));
  const workPath = join(folder, `${name}-work`);
  await containerd.withLease('default', async ({ tasks }) => {
    const options = { ...CheckpointOptions.decode(new Uint8Array()), workPath };
    await tasks.pause({ containerId: name });
    await tasks.checkpoint({
      containerId: name,
      parentCheckpoint: '',
      options: {
        typeUrl: 'containerd.runc.v1.CheckpointOptions',
        value: Buffer.from(CheckpointOptions.encode(options).finish()),
      },
    });
    await tasks.resume({ containerId: name });
  });
  // containerd puts both into the archive.
  for (const file of ['dump.log', 'stats-dump']) assert.ok(existsSync(join(workPath, file)), file);
  assert.equal(await statusOf(name), 'RUNNING');
});

test('a task of this name lives through containerd’s end, and is cleared away after its shim’s', async (t) => {
  const name = container(t);
  await detached(name);
  const [task, shim] = [await pidOf(name), await shimPid(name)];
  await dev('restart', 'containerd');
  assert.deepEqual([await pidOf(name), await shimPid(name)], [task, shim]);
  assert.equal((await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', name, '/bin/true'])).exitCode, 0);
  process.kill(shim, 'SIGKILL');
  await until('the task to be forgotten', async () =>
    (await statusOf(name)) === undefined ? true : undefined,
  );
  await until('its process to end', () => (existsSync(`/proc/${task}`) ? undefined : true));
  await until('its files to go', () => (existsSync(`${runDir}/tasks/default/${name}`) ? undefined : true));
});

test('the program answers -v and -info under this name', async () => {
  const program = join(stack.state, 'drop-in/containerd-shim-runc-v2');
  assert.match(await must(program, ['-v']), /Version: /);
  const info = await must('/bin/sh', ['-c', '"$0" -info </dev/null', program]);
  assert.match(info, /runtime-spec\/1\/features\/Features/);
});
