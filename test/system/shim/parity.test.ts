// The order of events, recorded under containerd's own shim and under ours on the same containerd: they must be equal.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { attempt, ctr, image, importImage, runtime } from '../support/stack.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import { Recording, type TaskEvent } from './events.ts';

const LOOP = 'while true; do sleep 0.1; done';
const detached = (name: string, type: string, script: string) =>
  ctr('run', '-d', '--null-io', '--runtime', type, image, name, '/bin/sh', '-c', script);

const scenarios: Record<string, (name: string, type: string) => Promise<unknown>> = {
  'run to the end': (name, type) =>
    attempt('ctr', ['run', '--rm', '--runtime', type, image, name, '/bin/sh', '-c', 'exit 3'], 30_000),

  'exec, pause, resume, kill, delete': async (name, type) => {
    await detached(name, type, LOOP);
    await attempt('ctr', ['tasks', 'exec', '--exec-id', 'one', name, '/bin/sh', '-c', 'exit 5']);
    await ctr('tasks', 'pause', name);
    await ctr('tasks', 'resume', name);
    await ctr('tasks', 'kill', '-s', 'SIGKILL', name);
    await attempt('ctr', ['tasks', 'rm', '-f', name]);
  },

  'init ends while an exec runs': async (name, type) => {
    await detached(name, type, 'sleep 1; exit 6');
    await attempt('ctr', ['tasks', 'exec', '--exec-id', 'long', name, '/bin/sh', '-c', 'sleep 600'], 30_000);
    await attempt('ctr', ['tasks', 'rm', name]);
  },

  'exec of a missing program': async (name, type) => {
    await detached(name, type, LOOP);
    await attempt('ctr', ['tasks', 'exec', '--exec-id', 'bad', name, '/no/such']);
    await attempt('ctr', ['tasks', 'rm', '-f', name]);
  },
};

before(importImage);

for (const [scenario, play] of Object.entries(scenarios)) {
  test(`${scenario}: the events are those of containerd's own shim`, async () => {
    const seen: Record<string, TaskEvent[]> = {};
    for (const type of ['io.containerd.runc.v2', runtime]) {
      const name = uniqueName('parity');
      const recording = await Recording.start(name);
      try {
        await play(name, type);
        seen[type] = await recording.through('/tasks/delete');
      } finally {
        recording.stop();
        await removeContainer(name);
      }
    }
    assert.deepEqual(seen[runtime], seen['io.containerd.runc.v2']);
    assert.ok((seen[runtime]?.length ?? 0) >= 4);
  });
}
