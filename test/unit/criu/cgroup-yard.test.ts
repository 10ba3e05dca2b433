import assert from 'node:assert/strict';
import { test } from 'node:test';
import { yardName } from '../../../src/criu/cgroup-yard.ts';
import { hierarchiesOf } from '../../../src/sys/cgroup.ts';

test('each hierarchy has the name that CRIU looks for', () => {
  assert.equal(yardName('cpu,cpuacct'), 'cpu,cpuacct');
  assert.equal(yardName('name=systemd'), 'systemd');
  assert.equal(yardName(''), 'unified');
});

const mounts = [
  '30 1 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
  '31 1 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd',
  '32 1 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
];

test('hierarchies are found where they are mounted whole', () => {
  assert.deepEqual(
    hierarchiesOf('3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/y\n', mounts.join('\n')),
    new Map([
      ['cpu,cpuacct', '/sys/fs/cgroup/cpu,cpuacct'],
      ['name=systemd', '/sys/fs/cgroup/systemd'],
      ['', '/sys/fs/cgroup/unified'],
    ]),
  );
});

test('one that is missing, or mounted in part, leaves them all to CRIU', () => {
  assert.equal(hierarchiesOf('4:memory:/\n0::/\n', mounts.join('\n')), undefined);
  assert.equal(hierarchiesOf('0::/\n', '32 1 0:32 /part /sys/fs/cgroup rw - cgroup2 cgroup2 rw'), undefined);
});
