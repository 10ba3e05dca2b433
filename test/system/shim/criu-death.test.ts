// A shim that is killed while CRIU is at work on one of its containers.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { Containerd } from '../../../src/containerd/client.ts';
import { hasErrno } from '../../../src/errors.ts';
import type { Descriptor } from '../../../src/proto/gen/containerd/descriptor.ts';
import { CheckpointOptions, Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { foldersAt } from '../../../src/sys/cgroup.ts';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { ctr, image, importImage, readIfThere, runtime, stack, until } from '../support/stack.ts';
import { runDir, shimPid } from './shims.ts';

const containerd = new Containerd(stack.address);
const lease = `criu-death-${process.pid}`;
const api = containerd.namespace('default', lease);
const folder = mkdtempSync(join(stack.state, 'data/tmp/criu-death-'));

/** Where containerd makes a task's `work` folder, in which CRIU works. */
const workRoot = join(stack.state, 'data/containerd/io.containerd.runtime.v2.task/default');

/** Much memory, so that CRIU has to do for a while; says when it has it all. */
const big = [
  '/bin/perl',
  '-e',
  'my $x = ""; $x .= pack("N*", $_ .. $_ + 262143) for 1 .. 300; open(F, ">/ready"); close F; sleep 600',
];

before(async () => {
  await importImage();
  await containerd.namespace('default').leases.create({ id: lease, labels: {} });
});
after(async () => {
  await containerd.namespace('default').leases.delete({ id: lease, sync: false });
  containerd.close();
  rmSync(folder, { recursive: true });
});

async function start(t: TestContext): Promise<string> {
  const name = uniqueName('criu');
  t.after(() => removeContainer(name));
  await ctr('run', '-d', '--null-io', '--runtime', runtime, image, name, ...big);
  const pid = (await pidOf(name)) ?? assert.fail('it does not run');
  await until('the memory', () => (existsSync(`/proc/${pid}/root/ready`) ? true : undefined), 60_000);
  return name;
}

function checkpoint(name: string, exit: boolean): Promise<{ descriptors: Descriptor[] }> {
  const value = Buffer.from(
    CheckpointOptions.encode({ ...CheckpointOptions.decode(new Uint8Array()), exit }).finish(),
  );
  const options = { typeUrl: 'containerd.runc.v1.CheckpointOptions', value };
  return api.tasks.checkpoint({ containerId: name, parentCheckpoint: '', options });
}

/** CRIUs that have a file of the container’s folders open, its log for one. */
function criuOf(name: string): number[] {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      try {
        if (readFileSync(`/proc/${pid}/comm`, 'utf8') !== 'criu\n') return false;
        const files = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
        return files.some((file) => file.includes(`/default/${name}/`));
      } catch {
        return false; // it has ended
      }
    })
    .map(Number);
}

/** Whatever still tells of a container on this machine. */
function traces(name: string): string[] {
  const cgroups = foldersAt(`/default/${name}`, readFileSync('/proc/self/mountinfo', 'utf8'));
  const processes = readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(`/proc/${pid}/cwd`).includes(`/${name}`);
    } catch {
      return false; // a kernel thread, or it has ended
    }
  });
  return [
    ...criuOf(name).map((pid) => `criu ${pid}`),
    ...processes.map((pid) => `process ${pid}`),
    ...cgroups.filter((path) => existsSync(path)),
    ...[`${runDir}/tasks/default/${name}`, `${runDir}/oci/default/${name}`].filter((path) =>
      existsSync(path),
    ),
    ...readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      // containerd renames a folder that it is about to remove.
      .filter((line) => new RegExp(`/default/\\.?${name}/`).test(line)),
    ...readdirSync(workRoot).filter((entry) => entry.endsWith(name)),
  ];
}

/** Kills the shim once CRIU is at work, and has come so far. CRIU stands still until that has happened. */
async function killShimAtWork(name: string, far: () => boolean = () => true): Promise<void> {
  const shim = await shimPid(name);
  const atWork = (): number[] | undefined => {
    const found = criuOf(name);
    return found.length > 0 && far() && signal(found, 'SIGSTOP') ? found : undefined;
  };
  const criu = await until('CRIU to be at work', atWork, 60_000);
  try {
    assert.notDeepEqual(criuOf(name), [], 'CRIU is at work when the shim is killed');
    process.kill(shim, 'SIGKILL');
  } finally {
    signal(criu, 'SIGCONT');
  }
}

/** @returns false where one of them had ended */
function signal(pids: readonly number[], name: NodeJS.Signals): boolean {
  try {
    for (const pid of pids) process.kill(pid, name);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ESRCH')) return false;
    throw error;
  }
}

async function nothingIsLeft(name: string): Promise<void> {
  await until('the task to be forgotten', async () =>
    (await statusOf(name)) === undefined ? true : undefined,
  );
  await until('all to be cleared away', () => (traces(name).length === 0 ? true : undefined), 10_000).catch(
    () => assert.fail(`left: ${traces(name).join(', ')}`),
  );
}

test('a shim that is killed during a dump leaves neither CRIU nor anything of the container', async (t) => {
  const name = await start(t);
  const dump = checkpoint(name, false).then(
    () => 'done',
    () => 'failed',
  );
  await killShimAtWork(name);
  assert.equal(await dump, 'failed');
  await nothingIsLeft(name);
});

/** Whether a process has been restored, as far as its cgroup. */
function hasProcess(name: string): boolean {
  return foldersAt(`/default/${name}`, readFileSync('/proc/self/mountinfo', 'utf8')).some(
    (path) => readIfThere(join(path, 'cgroup.procs')) !== undefined,
  );
}

for (const [when, far] of [
  ['at the beginning of', () => true],
  ['when a process is there, in the middle of', hasProcess],
] as const) {
  test(`a shim that is killed ${when} a restore leaves neither CRIU nor anything of the container`, async (t) => {
    const name = await start(t);
    const { descriptors } = await checkpoint(name, true);
    await until('its end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined));
    await api.tasks.delete({ containerId: name });
    const { mounts } = await api.snapshots.mounts({ snapshotter: 'stasis', key: name });
    const streams = { stdin: '', stdout: '', stderr: '', terminal: false };
    const value = Buffer.from(Options.encode(Options.decode(new Uint8Array())).finish());
    const options = { typeUrl: 'containerd.runc.v1.Options', value };
    const memory = descriptors.find(({ mediaType }) => mediaType.includes('criu'));
    const rest = { checkpoint: memory, options, runtimePath: '' };
    await api.tasks.create({ containerId: name, rootfs: mounts, ...streams, ...rest });
    const restored = api.tasks.start({ containerId: name, execId: '' }).then(
      () => 'done',
      () => 'failed',
    );
    await killShimAtWork(name, () => far(name));
    assert.equal(await restored, 'failed');
    await nothingIsLeft(name);
  });
}
