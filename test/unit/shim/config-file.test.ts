import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { wantsCheckpointable, withoutIoUring } from '../../../shim/container/checkpointable.ts';
import { editConfig } from '../../../shim/container/config-file.ts';
import { withLoopback } from '../../../shim/process/loopback.ts';

const rule = {
  names: ['io_uring_setup', 'io_uring_enter', 'io_uring_register'],
  action: 'SCMP_ACT_ERRNO',
  errnoRet: 38,
};

test('a container without a profile gets one that refuses io_uring alone', () => {
  const made = withoutIoUring({ ociVersion: '1.1.0', linux: { cgroupsPath: '/a' } });
  assert.deepEqual(made, {
    ociVersion: '1.1.0',
    linux: { cgroupsPath: '/a', seccomp: { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] } },
  });
});

test("a client's own profile keeps all its other rules, and no rule of its own allows io_uring", () => {
  const profile = {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 1,
    architectures: ['SCMP_ARCH_X86_64'],
    syscalls: [
      { names: ['read', 'io_uring_setup', 'write'], action: 'SCMP_ACT_ALLOW' },
      { names: ['io_uring_enter'], action: 'SCMP_ACT_ALLOW' },
      { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }] },
    ],
  };
  const before = structuredClone(profile);
  assert.deepEqual(withoutIoUring({ linux: { seccomp: profile } }).linux?.seccomp, {
    ...profile,
    syscalls: [
      { names: ['read', 'write'], action: 'SCMP_ACT_ALLOW' },
      { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }] },
      rule,
    ],
  });
  assert.deepEqual(profile, before);
});

test('a profile that answers ENOSYS to everything unknown gets no rule that libseccomp refuses', () => {
  const profile = { defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 38, syscalls: [] };
  assert.deepEqual(withoutIoUring({ linux: { seccomp: profile } }).linux?.seccomp, profile);
});

test('the annotation is true or false, and anything else is said to be wrong', () => {
  const of = (value: string) => ({ 'stasis.io/checkpointable': value });
  assert.equal(wantsCheckpointable({}), false);
  assert.equal(wantsCheckpointable(of('false')), false);
  assert.equal(wantsCheckpointable(of('true')), true);
  assert.throws(() => wantsCheckpointable(of('yes')), /stasis\.io\/checkpointable is "yes": it must be/);
});

test('config.json is replaced as a whole, readable by root alone', async () => {
  const bundle = await mkdtemp(join(tmpdir(), 'stasis-bundle-'));
  try {
    const path = join(bundle, 'config.json');
    await writeFile(path, JSON.stringify({ process: { args: ['x'] } }));
    editConfig(bundle, withoutIoUring);
    assert.deepEqual(JSON.parse(await readFile(path, 'utf8')), withoutIoUring({ process: { args: ['x'] } }));
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  } finally {
    await rm(bundle, { recursive: true });
  }
});

test("a restore brings up the loopback interface of a namespace that is the container's own alone", () => {
  const namespaces = (...list: { type: string; path?: string }[]) => ({ linux: { namespaces: list } });
  const own = withLoopback({
    ...namespaces({ type: 'network' }),
    hooks: { createRuntime: [{ path: '/cni' }] },
  });
  assert.deepEqual(
    own.hooks?.createRuntime?.map(({ path }) => path),
    ['/bin/sh', '/cni'],
  );
  const given = namespaces({ type: 'network', path: '/run/netns/x' });
  assert.equal(withLoopback(given), given);
  const host = namespaces({ type: 'pid' });
  assert.equal(withLoopback(host), host);
});
