// What clients ask again and again.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { Client } from '../../../ttrpc/index.ts';
import { removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { ctr, image, importImage, runtime, until } from '../support/stack.ts';
import { shimPid, shimSocket } from './shims.ts';

before(importImage);

/** Page faults of all children that a process ever had and waited for, proc(5): more with each of them. */
function faultsOfChildren(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[8]);
}

for (const version of ['v2', 'v3']) {
  test(`State, Stats, Pids and Connect of ${version} start no process, of a running task and of one that has ended`, async (t) => {
    const name = uniqueName('questions');
    t.after(() => removeContainer(name));
    await ctr('run', '-d', '--null-io', '--runtime', runtime, image, name, '/bin/sleep', '600');
    const client = await Client.connect(shimSocket(name));
    t.after(() => client.close());
    const tasks = client.service({ ...TaskDefinition, fullName: `containerd.task.${version}.Task` });
    const shim = await shimPid(name);
    const ask = async (): Promise<void> => {
      const [state, { stats }, , connect] = await Promise.all([
        tasks.state({ id: name, execId: '' }),
        tasks.stats({ id: name }),
        tasks.pids({ id: name }),
        tasks.connect({ id: name }),
      ]);
      assert.equal(state.pid, connect.taskPid);
      assert.match(stats?.typeUrl ?? '', /^io\.containerd\.cgroups\.v[12]\.Metrics$/);
      assert.ok((stats?.value.length ?? 0) > 0);
    };
    const askOften = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) await ask();
    };

    const before = faultsOfChildren(shim);
    await askOften();
    assert.equal(faultsOfChildren(shim), before);
    await ctr('tasks', 'exec', '--exec-id', 'e', name, '/bin/true');
    const withExec = faultsOfChildren(shim);
    assert.ok(withExec > before, 'that is how a process shows');

    await ctr('tasks', 'kill', '-s', 'SIGKILL', name);
    await until('its end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined));
    const ended = faultsOfChildren(shim);
    await askOften();
    assert.equal(faultsOfChildren(shim), ended);
  });
}
