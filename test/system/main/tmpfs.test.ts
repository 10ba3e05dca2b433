import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { pidOf, removeAll, startContainer, uniqueName } from '../support/container.ts';
import { importImage, must, stasis, until } from '../support/stack.ts';

/** The tmpfs mounts of a process's namespace, without what differs from mount to mount. */
function tmpfsOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .split('\n')
    .filter((line) => / \/ \S+ [^-]*- tmpfs /.test(line))
    .map((line) => line.split(' ').slice(3).join(' '))
    .sort();
}

async function livingPid(name: string): Promise<number> {
  const pid = await pidOf(name);
  assert.ok(pid !== undefined, `${name} has a process`);
  return pid;
}

const rootsOf = (pid: number): string[] =>
  ['/run', '/dev/shm', '/proc/acpi', '/scratch'].map((path) => {
    const { mode, uid, gid } = statSync(`/proc/${pid}/root${path}`);
    return `${path} ${mode.toString(8)} ${uid}:${gid}`;
  });

suite('tmpfs mounts of a container', () => {
  const [web, other] = [uniqueName('tmpfs'), uniqueName('tmpfs')];
  before(importImage);
  after(() => removeAll(other, web));

  test('come back with their options, owners and content, empty or not, and nothing of them stays on the host', async () => {
    const script = 'chmod 1711 /run; chown 7:8 /run; echo kept >/scratch/file; while :; do sleep 0.05; done';
    const scratch = ['--mount', 'type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m:nr_inodes=100'];
    await startContainer(web, ['/bin/sh', '-c', script], scratch);
    const pid = await livingPid(web);
    const file = (of: number): string => readFileSync(`/proc/${of}/root/scratch/file`, 'utf8');
    await until('the file', () => {
      try {
        return file(pid) === 'kept\n' ? true : undefined;
      } catch {
        return undefined;
      }
    });
    await stasis('checkpoint', web, '--name', 'c', '--require-memory');
    await stasis('restore', web, '--snapshot', 'c', '--as', other, '--require-memory');
    const restored = await livingPid(other);
    assert.ok(tmpfsOf(pid).length >= 4);
    // The owner of /run's root has become an option of the mount.
    const plain = (lines: string[]): string[] =>
      lines.map((line) => line.replace(/,(mode|uid|gid)=\d+/g, ''));
    assert.deepEqual(plain(tmpfsOf(restored)), plain(tmpfsOf(pid)));
    assert.deepEqual(rootsOf(restored), rootsOf(pid));
    assert.equal(file(restored), 'kept\n');
    // A moment after the client has its answer.
    await until('the mounts that were made for it to go', () =>
      /stasis-tmpfs/.test(readFileSync('/proc/self/mounts', 'utf8')) ? undefined : true,
    );
    await must('ctr', [
      'tasks',
      'exec',
      '--exec-id',
      'x',
      other,
      '/bin/sh',
      '-c',
      'echo y >/run/new; ! touch /proc/acpi/x',
    ]);
    // A second generation: the mounts of a restored container are left out just the same.
    await stasis('checkpoint', other, '--name', 'd', '--require-memory');
    await stasis('restore', other, '--snapshot', 'd', '--require-memory');
    assert.deepEqual(plain(tmpfsOf(await livingPid(other))), plain(tmpfsOf(pid)));
    assert.equal(readFileSync(`/proc/${await livingPid(other)}/root/run/new`, 'utf8'), 'y\n');
  });
});
