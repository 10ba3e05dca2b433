import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, suite, test } from 'node:test';
import { cgroupPids, findCgroup, folderOf } from '../../../src/sys/cgroup.ts';
import {
  count,
  pidOf,
  progress,
  removeAll,
  startContainer,
  startWriter,
  uniqueName,
} from '../support/container.ts';
import { ctr, dev, importImage, must, stack, stasis, until } from '../support/stack.ts';

interface Taken {
  readonly unchangedSince: string | null;
  readonly writtenBytes: number | null;
  readonly memory: string;
  readonly timings: { readonly frozenNs: number };
}

async function take(container: string, name: string): Promise<Taken> {
  const text = await stasis('checkpoint', container, '--name', name, '--require-memory', '--json');
  return (JSON.parse(text) as { checkpoint: Taken }).checkpoint;
}

async function livingPid(name: string): Promise<number> {
  const pid = await pidOf(name);
  assert.ok(pid !== undefined, `${name} has a process`);
  return pid;
}

/** Bytes that a snapshot alone holds. */
async function used(snapshot: string): Promise<number> {
  return Number((await must('zfs', ['get', '-Hp', '-o', 'value', 'used', snapshot])).trim());
}

suite('a checkpoint of a paused container that has not run since its last one', () => {
  const [web, copy] = [uniqueName('still'), uniqueName('still')];
  before(async () => {
    await importImage();
    await startWriter(web);
  });
  after(() => removeAll(copy, web));

  test('is a second name for that one: nothing is dumped, and either can be removed and restored without the other', async () => {
    await ctr('tasks', 'pause', web);
    const first = await take(web, 'first');
    assert.equal(first.unchangedSince, null);
    const counted = await count(web);
    for (const name of ['second', 'third']) {
      const taken = await take(web, name);
      assert.equal(taken.unchangedSince, name === 'second' ? 'first' : 'second');
      assert.equal(taken.writtenBytes, 0);
      assert.equal(taken.timings.frozenNs, 0);
    }
    const dataset = `${stack.root}/containers/default/${web}`;
    for (const half of [dataset, `${dataset}/memory`]) assert.equal(await used(`${half}@third`), 0);
    await stasis('rm', web, 'first');
    await stasis('rm', web, 'third');
    await stasis('restore', web, '--snapshot', 'second', '--as', copy, '--require-memory');
    await progress(copy, 5);
    assert.ok((await count(copy)) > counted, 'it goes on where it stood');
    assert.equal((await take(web, 'fourth')).unchangedSince, 'second');
    await ctr('tasks', 'resume', web);
    await progress(web, 5);
  });
});

/** A program that waits in every way that a test needs: it holds a pipe and a socket for datagrams, and has a sleeping child. */
const waiter = `mkfifo /fifo; exec perl -e '
use Socket;
open F, "+<", "/fifo" or die;
socket S, AF_INET, SOCK_DGRAM, 0 or die;
bind S, sockaddr_in(999, INADDR_ANY) or die;
fork or do { sleep 1000 while 1 };
open R, ">", "/ready"; close R;
sleep 1000 while 1'`;

suite('a paused container is dumped again', () => {
  let web: string;
  let pid: number;
  before(importImage);
  beforeEach(async () => {
    web = uniqueName('changed');
    await startContainer(web, ['/bin/sh', '-c', waiter]);
    pid = await livingPid(web);
    await until('the container to be ready', () => {
      try {
        readFileSync(`/proc/${pid}/root/ready`);
        return true;
      } catch {
        return undefined;
      }
    });
    await ctr('tasks', 'pause', web);
    await take(web, 'a');
    assert.equal((await take(web, 'b')).unchangedSince, 'a', 'without a change it is not');
  });
  afterEach(() => removeAll(web));

  const changes: Record<string, () => Promise<unknown> | void> = {
    'when it has run meanwhile': async () => {
      await ctr('tasks', 'resume', web);
      await ctr('tasks', 'pause', web);
    },
    'when a signal waits for one of its processes': async () => {
      const child = (await cgroupPids(await findCgroup(pid))).find((other) => other !== pid);
      assert.ok(child !== undefined);
      process.kill(child, 'SIGUSR1');
    },
    'when a file on its disk was written from outside': () =>
      writeFileSync(`/proc/${pid}/root/etc/written`, 'x'),
    'when a file on a tmpfs of its was written from outside': () =>
      writeFileSync(`/proc/${pid}/root/dev/shm/written`, 'x'),
    'when bytes came into a pipe': () => appendFileSync(`/proc/${pid}/root/fifo`, 'x\n'),
    'when a datagram came in': () =>
      must('nsenter', ['-t', String(pid), '-n', 'bash', '-c', 'echo x >/dev/udp/127.0.0.1/999']),
    'when its limits were changed': () => must('prlimit', ['--pid', String(pid), '--nofile=100:200']),
    'when its cgroup was changed': async () => {
      const folder = folderOf(await findCgroup(pid), 'pids');
      assert.ok(folder !== undefined);
      writeFileSync(join(folder, 'pids.max'), '999');
    },
    'when its record in containerd was changed': () => ctr('containers', 'label', web, 'new=label'),
    'when all of its checkpoints were removed': () => stasis('rm', web, 'a', 'b'),
    'when stasisd was restarted': () => dev('restart', 'stasisd'),
    'when it was rewound': async () => {
      await stasis('restore', web, '--snapshot', 'a');
      await ctr('tasks', 'pause', web);
    },
  };
  for (const [what, change] of Object.entries(changes)) {
    test(what, async () => {
      await change();
      const taken = await take(web, 'c');
      assert.equal(taken.unchangedSince, null);
      assert.equal(taken.memory, 'image');
      assert.ok(taken.timings.frozenNs > 0);
    });
  }
});
