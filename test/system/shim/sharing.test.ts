// Who shares a shim, and what a shim of one's own is given.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, afterEach, before, test, type TestContext } from 'node:test';
import { foldersAt } from '../../../src/sys/cgroup.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import { ended } from '../support/process.ts';
import { attempt, ctr, image, importImage, runtime, stack, until } from '../support/stack.ts';
import { runDir, shimPid, shimSocket } from './shims.ts';

const config = readFileSync(stack.config, 'utf8');
const folder = mkdtempSync(join(stack.state, 'data/tmp/sharing-'));

before(importImage);
afterEach(() => writeFileSync(stack.config, config));
after(() => rmSync(folder, { recursive: true }));

const share = (sharing: string): void =>
  writeFileSync(stack.config, `${config}\n[shim]\nsharing = "${sharing}"\n`);

async function start(t: TestContext, ...flags: string[]): Promise<string> {
  const name = uniqueName('share');
  t.after(() => removeContainer(name));
  await ctr('run', '-d', '--null-io', '--runtime', runtime, ...flags, image, name, '/bin/sleep', '600');
  return name;
}

const oomScore = (pid: number): number => Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'));

/** The containerd that started a shim's launcher: its score is what the shim's is compared with. */
function containerdPid(): number {
  return Number(readFileSync(join(stack.state, 'containerd.pid'), 'utf8'));
}

test('a namespace shares one shim, which yields to containerd when memory is short', async (t) => {
  const [one, two] = [await start(t), await start(t)];
  assert.equal(await shimPid(one), await shimPid(two));
  assert.equal(oomScore(await shimPid(one)), oomScore(containerdPid()) + 1);
});

test('each container has a shim of its own, in the cgroup that the options name, and it leaves with it', async (t) => {
  share('container');
  const cgroup = `/stasis-shims-${process.pid}`;
  // v1's cpuset takes no process before it has been given processors.
  const places = foldersAt(cgroup, readFileSync('/proc/self/mountinfo', 'utf8')).filter(
    (place) => !place.includes('cpuset'),
  );
  for (const place of places) mkdirSync(place);
  t.after(() => {
    for (const place of places) rmdirSync(place);
  });
  const options = join(folder, 'options.toml');
  writeFileSync(options, `ShimCgroup = "${cgroup}"\n`);
  const [one, two] = [await start(t), await start(t, '--runtime-config-path', options)];
  const [first, second] = [await shimPid(one), await shimPid(two)];
  assert.notEqual(first, second);
  assert.doesNotMatch(readFileSync(`/proc/${first}/cgroup`, 'utf8'), new RegExp(cgroup));
  const lines = readFileSync(`/proc/${second}/cgroup`, 'utf8').trim().split('\n');
  assert.equal(lines.filter((line) => line.endsWith(`:${cgroup}`)).length, places.length);
  await removeContainer(one, two);
  await Promise.all([ended(first), ended(second)]);
});

test('a shim cgroup that does not exist fails the start, with its name', async (t) => {
  share('container');
  const options = join(folder, 'missing.toml');
  writeFileSync(options, 'ShimCgroup = "/no/such"\n');
  const name = uniqueName('share');
  t.after(() => removeContainer(name));
  const flags = ['--runtime', runtime, '--runtime-config-path', options];
  const result = await attempt('ctr', ['run', '-d', '--null-io', ...flags, image, name, '/bin/true']);
  assert.notEqual(result.exitCode, 0);
  assert.match(result.stderr, /there is no cgroup \/no\/such/);
});

for (const sharing of ['container', 'pod']) {
  test(`what a killed shim of a ${sharing} left is gone after the next start of any`, async (t) => {
    share(sharing);
    const flags = (id: string): string[] =>
      sharing === 'pod' ? ['--annotation', `io.kubernetes.cri.sandbox-id=${id}`] : [];
    const first = await start(t, ...flags('killed'));
    const socket = shimSocket(first).replace(/^unix:\/\//, '');
    const lock = join(runDir, 'locks', basename(socket));
    const pid = await shimPid(first);
    assert.ok(existsSync(socket) && existsSync(lock));
    process.kill(pid, 'SIGKILL');
    await ended(pid);
    await removeContainer(first);
    const second = await start(t, ...flags('next'));
    await until('them to be gone', () => (existsSync(socket) || existsSync(lock) ? undefined : true));
    assert.ok(existsSync(shimSocket(second).replace(/^unix:\/\//, '')), 'that of the living stays');
    assert.ok(!existsSync(join(runDir, 'tasks/default', first, 'state.json')));
    assert.ok(!existsSync(join(runDir, 'oci/default', first)));
  });
}

test('the containers of a pod share a shim, and other pods have another', async (t) => {
  share('pod');
  const pod = (id: string): string[] => ['--annotation', `io.kubernetes.cri.sandbox-id=${id}`];
  const [a1, a2, b] = [
    await start(t, ...pod('pod-a')),
    await start(t, ...pod('pod-a')),
    await start(t, ...pod('pod-b')),
  ];
  const pids = [await shimPid(a1), await shimPid(a2), await shimPid(b)];
  assert.equal(pids[0], pids[1]);
  assert.notEqual(pids[0], pids[2]);
  await removeContainer(a1);
  assert.equal(await shimPid(a2), pids[1], 'it stays while the pod has a container');
  await removeContainer(a2, b);
  await Promise.all(pids.map(ended));
});
