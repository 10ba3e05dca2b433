// The order of events, recorded under containerd's own shim and under ours on the same containerd: they must be equal.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { attempt, ctr, image, importImage, runtime } from '../support/stack.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import { Recording, type TaskEvent } from './events.ts';

const LOOP = 'while true; do sleep 0.1; done';
const detached = (name: string, type: string, script: string) =>
  ctr('run', '-d', '--null-io', '--runtime', type, image, name, '/bin/sh', '-c', script);

type Play = (name: string, type: string) => Promise<unknown>;

const scenarios: Record<string, Play> = {
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

async function record(play: Play, type: string): Promise<TaskEvent[]> {
  const name = uniqueName('parity');
  const recording = await Recording.start(name);
  try {
    await play(name, type);
    return await recording.through('/tasks/delete');
  } finally {
    recording.stop();
    await removeContainer(name);
  }
}

/** containerd's shim sometimes leaves before its last event is out (seen with 2.1 on a busy machine): asked again then. */
async function recordTheirs(play: Play, attempts = 5): Promise<TaskEvent[]> {
  try {
    return await record(play, 'io.containerd.runc.v2');
  } catch (error) {
    if (attempts === 1) throw error;
    return recordTheirs(play, attempts - 1);
  }
}

before(importImage);

for (const [scenario, play] of Object.entries(scenarios)) {
  test(`${scenario}: the events are those of containerd's own shim`, async () => {
    const theirs = await recordTheirs(play);
    const ours = await record(play, runtime);
    assert.deepEqual(ours, theirs);
    assert.ok(ours.length >= 4);
  });
}
