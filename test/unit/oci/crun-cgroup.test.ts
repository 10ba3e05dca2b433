import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailedPrecondition } from '../../../src/errors.ts';
import { assertOwnCgroup } from '../../../src/oci/crun-cgroup.ts';

test('a restore by crun that would end in the root cgroup is refused, and the mount is named', () => {
  assert.doesNotThrow(() => assertOwnCgroup('web', () => undefined));
  const says = (unmounted: string, command: string): void =>
    assert.throws(
      () => assertOwnCgroup('web', () => unmounted),
      (error: unknown) =>
        error instanceof FailedPrecondition &&
        error.message.includes(`restore web into`) &&
        error.remedy?.includes(command) === true,
    );
  says('hugetlb', 'mount -t cgroup -o hugetlb cgroup /sys/fs/cgroup/hugetlb;');
  says('name=systemd', 'mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd;');
});
