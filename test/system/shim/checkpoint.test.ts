// Task.Checkpoint where it meets the container in an awkward moment.
import assert from 'node:assert/strict';
import { before, test, type TestContext } from 'node:test';
import { Containerd } from '../../../src/containerd/client.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { CheckpointOptions } from '../../../src/proto/gen/containerd/runc_options.ts';
import { removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { ctr, image, importImage, runtime, stack } from '../support/stack.ts';

before(importImage);

/** Spends half of its time inside vfork: clone(2) with CLONE_VFORK | SIGCHLD, and a child that takes its time. */
const vforking = [
  '/bin/perl',
  '-e',
  `while (1) { my $p = syscall(${process.arch === 'arm64' ? 220 : 56}, 0x4011, 0, 0, 0, 0); die $! if $p < 0; ` +
    'if ($p == 0) { select(undef, undef, undef, 0.01); exec "/bin/true" } waitpid $p, 0; select(undef, undef, undef, 0.01) }',
];

async function checkpoint(t: TestContext, name: string): Promise<void> {
  const containerd = new Containerd(stack.address);
  t.after(() => containerd.close());
  const value = Buffer.from(CheckpointOptions.encode(CheckpointOptions.decode(new Uint8Array())).finish());
  const options = { typeUrl: 'containerd.runc.v1.CheckpointOptions', value };
  const { tasks } = containerd.namespace('default');
  await tasks.checkpoint({ containerId: name, parentCheckpoint: '', options }).catch((error: unknown) => {
    // containerd stores the container's specification after the dump, and has it from the checkpoint before.
    if (codeOf(error) !== Code.AlreadyExists) throw error;
  });
}

test('a container that starts programs all the time is dumped, running or paused by the client', async (t) => {
  const name = uniqueName('dump');
  t.after(() => removeContainer(name));
  await ctr('run', '-d', '--null-io', '--runtime', runtime, image, name, ...vforking);
  for (let round = 0; round < 3; round++) await checkpoint(t, name);
  assert.equal(await statusOf(name), 'RUNNING');
  await ctr('tasks', 'pause', name);
  await checkpoint(t, name);
  assert.equal(await statusOf(name), 'PAUSED');
  await ctr('tasks', 'resume', name);
});
