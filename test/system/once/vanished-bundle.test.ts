// A bundle that somebody takes away, or that has no room: whoever cleans below /run, and a file system without inodes.
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { defaultSpec } from '../../../src/cli/default-spec.ts';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { findCgroup, foldersOf } from '../../../src/sys/cgroup.ts';
import { mount, unmount } from '../../../src/sys/mount.ts';
import { Client } from '../../../ttrpc/index.ts';
import { runDir, shimSocket } from '../shim/shims.ts';
import { pidOf, removeContainer, startContainer, statusOf, uniqueName } from '../support/container.ts';
import { ended } from '../support/process.ts';
import { attempt, ctr, importImage, runtime, stack, until } from '../support/stack.ts';

let folder: string;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/bundle-'));
});
after(() => rmSync(folder, { recursive: true }));

const mounted = (path: string): boolean => readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${path}`);

/** A container without its bundle. */
async function withoutBundle(t: TestContext): Promise<{ name: string; bundle: string; pid: number }> {
  const name = uniqueName('vanished');
  t.after(() => removeContainer(name));
  await startContainer(name, ['/bin/sleep', '600']);
  const record = readFileSync(join(runDir, 'tasks/default', name, 'state.json'), 'utf8');
  const { bundle } = JSON.parse(record) as { bundle: string };
  await unmount(join(bundle, 'rootfs')); // the container's own is in its mount namespace
  rmSync(bundle, { recursive: true });
  return { name, bundle, pid: (await pidOf(name)) ?? assert.fail('it does not run') };
}

test('a container whose bundle has vanished is asked, paused, killed and deleted as any other', async (t) => {
  const { name, bundle, pid } = await withoutBundle(t);
  const cgroup = await findCgroup(pid);
  assert.equal(await statusOf(name), 'RUNNING');
  assert.match(await ctr('tasks', 'metrics', name), /pids\.current/);
  assert.match(await ctr('tasks', 'ps', name), new RegExp(String(pid)));
  await ctr('tasks', 'pause', name);
  await ctr('tasks', 'resume', name);
  await ctr('tasks', 'kill', '-s', 'SIGKILL', name);
  await ended(pid);
  await until('its end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined));
  await ctr('tasks', 'rm', name).catch(() => undefined); // fails with the exit code
  assert.equal(await statusOf(name), undefined);
  const left = [
    ...foldersOf(cgroup).filter((path) => existsSync(path)),
    ...[join(runDir, 'oci/default', name), bundle].filter((path) => existsSync(path)),
    ...[bundle].filter(mounted),
  ];
  assert.deepEqual(left, []);
  assert.ok(!existsSync(join(runDir, 'tasks/default', name, 'state.json')));
});

test('an exec in it says what is missing, and can be deleted', async (t) => {
  const { name, bundle } = await withoutBundle(t);
  const exec = await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', name, '/bin/true']);
  assert.notEqual(exec.exitCode, 0);
  assert.match(exec.stderr, new RegExp(`bundle.*${bundle}.*is gone`));
  assert.equal(await statusOf(name), 'RUNNING');
  const again = await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', name, '/bin/true']);
  assert.doesNotMatch(again.stderr, /already exists/);
});

test('of a shim that is killed the next clears such a container away: containerd cannot ask for it without the bundle', async (t) => {
  const { name, pid } = await withoutBundle(t);
  const cgroup = await findCgroup(pid);
  const client = await Client.connect(shimSocket(name));
  const { shimPid } = await client.service(TaskDefinition).connect({ id: name });
  client.close();
  process.kill(shimPid, 'SIGKILL');
  await ended(shimPid);
  const next = uniqueName('vanished');
  t.after(() => removeContainer(next));
  await startContainer(next, ['/bin/sleep', '600']);
  await ended(pid);
  await until('all to be cleared away', () => {
    const left = [...foldersOf(cgroup), join(runDir, 'oci/default', name)].filter((path) => existsSync(path));
    return left.length === 0 ? true : undefined;
  });
});

/** A file system with room for so many files, its own folder included. */
async function small(
  t: TestContext,
  target: string,
  inodes: number,
): Promise<(more: number) => Promise<void>> {
  mkdirSync(target, { recursive: true });
  const entry = { type: 'tmpfs', source: 'tmpfs', target };
  await mount({ ...entry, options: [`nr_inodes=${inodes}`, 'size=4m', 'mode=700'] });
  t.after(() => unmount(target, { detach: true }));
  return (more) => mount({ ...entry, options: ['remount', `nr_inodes=${more}`, 'size=4m'] });
}

test('without an inode in the bundle Create fails with the reason, whichever file it is, and leaves nothing', async (t) => {
  const name = uniqueName('holder');
  t.after(() => removeContainer(name));
  await startContainer(name, ['/bin/sleep', '600']);
  const client = await Client.connect(shimSocket(name));
  t.after(() => client.close());
  const tasks = client.service(TaskDefinition);
  const bundle = join(folder, 'small');
  const grow = await small(t, bundle, 4); // itself, rootfs, config.json, and one
  mkdirSync(join(bundle, 'rootfs'));
  const id = uniqueName('full');
  const spec = defaultSpec(['/bin/true']);
  writeFileSync(
    join(bundle, 'config.json'),
    JSON.stringify({ ...spec, linux: { ...spec.linux, cgroupsPath: `/full/${id}` } }),
  );
  const rootfs = [{ type: 'bind', source: '/', target: '', options: ['bind', 'ro'] }]; // has the program
  const streams = { terminal: false, stdin: '', stdout: '', stderr: '' };
  const request = {
    id,
    bundle,
    rootfs,
    ...streams,
    checkpoint: '',
    parentCheckpoint: '',
    options: undefined,
  };
  for (const inodes of [3, 4]) {
    if (inodes === 3) writeFileSync(join(bundle, 'filler'), '');
    else rmSync(join(bundle, 'filler'));
    await assert.rejects(tasks.create(request), /no space left|ENOSPC/i, `${inodes}`);
    assert.ok(!existsSync(join(runDir, 'tasks/default', id)), 'a record is left');
    assert.ok(!existsSync(join(runDir, 'oci/default', id)), 'the runtime knows it');
    assert.ok(!mounted(join(bundle, 'rootfs')), 'its root file system is mounted');
    assert.deepEqual(
      readdirSync(bundle).filter((file) => !/^(rootfs|config.json|filler)$/.test(file)),
      [],
    );
  }
  await grow(100);
  assert.equal(await statusOf(name), 'RUNNING');
});

test('without an inode in the run folder Create fails with the reason; with one again the same name works', async (t) => {
  const namespace = uniqueName('full');
  const inNamespace = (...args: string[]): string[] => ['-n', namespace, ...args];
  await ctr(...inNamespace('namespaces', 'create', namespace));
  t.after(async () => {
    for (const kind of ['images', 'containers'])
      for (const one of (await ctr(...inNamespace(kind, 'ls', '-q'))).split('\n').filter(Boolean))
        await ctr(...inNamespace(kind, 'rm', ...(kind === 'images' ? ['--sync'] : []), one));
    await ctr('namespaces', 'rm', namespace);
  });
  const grow = await small(t, join(runDir, 'tasks', namespace), 2); // itself and one
  const root = join(folder, 'root');
  mkdirSync(root, { recursive: true });
  const run = (name: string) =>
    attempt(
      'ctr',
      inNamespace('run', '--rm', '--null-io', '--rootfs', '--runtime', runtime, root, name, '/bin/x'),
    );
  const refused = await run('one');
  assert.notEqual(refused.exitCode, 0);
  assert.match(refused.stderr, /ENOSPC/);
  assert.deepEqual(readdirSync(join(runDir, 'tasks', namespace)), []);
  await grow(100);
  const made = await run('one');
  assert.match(made.stderr, /\/bin\/x/, 'it comes as far as its program, which is not there');
});
