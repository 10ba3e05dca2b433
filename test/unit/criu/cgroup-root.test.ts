import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cgroupRoot } from '../../../src/criu/cgroup-root.ts';

const v2 = new Map([['', '/sys/fs/cgroup']]);

test('on cgroup v2 what is restored goes to the cgroup of the container that it is restored as', () => {
  assert.deepEqual(cgroupRoot('/default/web-1', v2), ['cgroup-root /default/web-1']);
});

test('CRIU is told nothing on v1, where the runtime does, nor of a path that is not plain', () => {
  assert.deepEqual(
    cgroupRoot(
      '/default/web-1',
      new Map([
        ['memory', '/sys/fs/cgroup/memory'],
        ['', '/u'],
      ]),
    ),
    [],
  );
  assert.deepEqual(cgroupRoot('/default/web-1', undefined), []);
  for (const path of ['', 'system.slice:runc:web', '/with space/web', '/two\nlines', undefined, 7])
    assert.deepEqual(cgroupRoot(path, v2), [], String(path));
});
