import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckpointEntry } from '../../../src/checkpoint/entry.ts';
import type { Host } from '../../../src/checkpoint/host.ts';
import { hostObstacle, isLazy, type Paging } from '../../../src/checkpoint/paging.ts';
import { encodeSpec, type OciSpec } from '../../../src/checkpoint/spec.ts';
import { defaults } from '../../../src/config/schema.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { Container } from '../../../src/proto/gen/containerd/containers.ts';
import { Options } from '../../../src/proto/gen/containerd/runc_options.ts';

const MIB = 1024 * 1024;

/** A host that says what it was asked. */
function host({ uffd = true, from = 64 } = {}): { host: Parameters<typeof isLazy>[0]; asked: string[] } {
  const asked: string[] = [];
  const parts = {
    config: { ...defaults, checkpoint: { ...defaults.checkpoint, lazy_from: from } },
    criu: { has: async (feature: string) => (asked.push(feature), uffd) },
    runtimes: {
      get: async (name: string) => (asked.push(name), { name: name.includes('crun') ? 'crun' : 'runc' }),
    },
  };
  return { host: parts as unknown as Host, asked };
}

function container(options: { runtime?: string; binary?: string; spec?: OciSpec } = {}): Container {
  const { runtime = 'io.containerd.stasis.v2', binary = '', spec = {} } = options;
  const typeUrl = 'containerd.runc.v1.Options';
  const value = Buffer.from(Options.encode(Options.fromPartial({ binaryName: binary })).finish());
  return Container.fromPartial({
    id: 'web',
    runtime: { name: runtime, options: { typeUrl, value } },
    spec: encodeSpec(spec),
  });
}

function entry(mib: number, memory: 'image' | 'none' = 'image'): CheckpointEntry {
  return { memory, memoryBytes: mib * MIB, name: 'c', container: 'web' } as CheckpointEntry;
}

test('small images are read before, and nothing is asked for them', async () => {
  const small = host();
  assert.equal(await isLazy(small.host, container(), entry(63), 'auto'), false);
  assert.equal(await isLazy(small.host, container(), entry(9999), 'eager'), false);
  assert.equal(await isLazy(host({ from: 0 }).host, container(), entry(9999), 'auto'), false);
  assert.deepEqual(small.asked, []);
  assert.equal(await isLazy(small.host, container(), entry(64), 'auto'), true);
  assert.deepEqual(small.asked, ['runc', 'uffd-noncoop']);
  assert.equal(await isLazy(host({ from: 0 }).host, container(), entry(1), 'lazy'), true);
});

const impossible: [string, Parameters<typeof container>[0], boolean, RegExp][] = [
  ['another runtime', { runtime: 'io.containerd.runc.v2' }, true, /its runtime is io.containerd.runc.v2/],
  ['crun', { binary: '/usr/bin/crun' }, true, /crun has no lazy restore/],
  ['no userfaultfd', {}, false, /userfaultfd/],
  [
    'a user namespace',
    {
      spec: {
        linux: {
          uidMappings: [{ containerID: 0, hostID: 5, size: 9 }],
          gidMappings: [{ containerID: 0, hostID: 5, size: 9 }],
        },
      },
    },
    true,
    /user namespace/,
  ],
];
for (const [what, options, uffd, why] of impossible) {
  test(`with ${what} all is read before, and --lazy is refused`, async () => {
    const ask = (paging: Paging): Promise<boolean> =>
      isLazy(host({ uffd }).host, container(options), entry(9999), paging);
    assert.equal(await ask('auto'), false);
    await assert.rejects(
      ask('lazy'),
      (error) => codeOf(error) === Code.FailedPrecondition && why.test(String(error)),
    );
  });
}

test('what has no memory cannot bring it in', async () => {
  const none = entry(9999, 'none');
  assert.equal(await isLazy(host().host, container(), none, 'auto'), false);
  await assert.rejects(isLazy(host().host, container(), none, 'lazy'), /holds no memory/);
});

test('a host says why it cannot', async () => {
  assert.equal(await hostObstacle(host().host), undefined);
  assert.match((await hostObstacle(host({ uffd: false }).host)) ?? '', /userfaultfd/);
});
