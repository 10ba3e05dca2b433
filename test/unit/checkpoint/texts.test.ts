import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownersOf } from '../../../src/checkpoint/remove.ts';
import { findCheckpoint } from '../../../src/checkpoint/find.ts';
import { explainCommand } from '../../../src/checkpoint/run.ts';
import { asCallerSees } from '../../../src/checkpoint/taking.ts';
import type { NamespaceClient } from '../../../src/containerd/client.ts';
import { Code, InvalidArgument, NotFound, Unavailable } from '../../../src/errors.ts';

test('a command that is not in a bundle is a mistake in the bundle, by runc and by crun', () => {
  const said = [
    'OCI runtime create failed: runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown',
    'OCI runtime create failed: executable file `nope` not found in $PATH: No such file or directory: unknown',
  ];
  for (const text of said) {
    const told = explainCommand(new Error(text), '/bundle');
    assert.ok(told instanceof InvalidArgument);
    assert.match(told.message, /^the command nope of bundle \/bundle cannot be started: .*not found/);
    assert.match(told.remedy ?? '', /process\.args in \/bundle\/config\.json/);
  }
  const other = new Error('no such device');
  assert.equal(explainCommand(other, '/bundle'), other);
});

test('data that stays is said to stay for containers, not for datasets, each once, and not for those that were undone', () => {
  const node = (dataset: string, name?: string, more: object = {}): Parameters<typeof ownersOf>[0][number] =>
    ({
      ...{ dataset, snapshot: name === undefined ? undefined : { name } },
      ...{ state: 'live', inTrash: false, snapshots: new Map(), ...more },
    }) as never;
  const nodes = [
    node('t/s/containers/default/web.2', 'default/7/web'),
    node('t/s/containers/default/web.3', 'default/7/web'),
    node('t/s/containers/default/web-1', 'default/9/web-1'),
    node('t/s/bare'),
    node('t/s/trash/1-web-3', 'default/11/web-3', { state: 'removed', inTrash: true }),
    node('t/s/containers/default/web-4', 'default/13/web-4', { state: 'removed' }),
    node('t/s/containers/default/web-0', 'default/15/web-0', {
      state: 'removed',
      snapshots: new Map([['c', {}]]),
    }),
  ];
  assert.deepEqual(
    ownersOf(
      nodes,
      nodes.map(({ dataset }) => dataset),
    ),
    ['t/s/bare', 'web', 'web-0', 'web-1'],
  );
});

test('a checkpoint of a container that does not exist: the container is what is missing', async () => {
  const catalog = {
    of: () => [],
    resolve: () => {
      throw new NotFound('container web has no checkpoints');
    },
  };
  const client = (exists: boolean): NamespaceClient =>
    ({
      namespace: 'default',
      containers: {
        get: async () => {
          if (!exists) throw new NotFound('container "web" not found');
          return { container: { id: 'web' } };
        },
      },
    }) as unknown as NamespaceClient;
  const containerd = { namespaces: async () => ['default'] };
  const known = { ...catalog, all: () => [] };
  const host = { catalog: known, containerd } as unknown as Parameters<typeof findCheckpoint>[0];
  await assert.rejects(
    findCheckpoint(host, client(false), 'web', ''),
    /no container web in namespace default/,
  );
  const elsewhere = { ...client(false), namespace: 'typo' };
  await assert.rejects(
    findCheckpoint(host, elsewhere, 'web', ''),
    ({ message, reason }: NotFound) =>
      message === 'there is no namespace typo' && reason === 'namespace-not-found',
  );
  await assert.rejects(findCheckpoint(host, client(true), 'web', ''), /has no checkpoints/);
});

test('a checkpoint whose shim went away says that there is none of it, whether memory was required or not', () => {
  const cut = new Unavailable('Checkpoint was cut off: the shim’s worker has ended (SIGKILL)');
  for (const requireMemory of [true, false]) {
    const told = asCallerSees(cut, { container: 'web', requireMemory } as never);
    assert.deepEqual([told.code, told.subject, told.reason], [Code.Unavailable, 'web', 'cut-off']);
    assert.match(told.message, /^no checkpoint of container web was made: .* was cut off/);
    assert.match(told.remedy ?? '', /is undone; .* take it again: stasis ls web/);
  }
});
