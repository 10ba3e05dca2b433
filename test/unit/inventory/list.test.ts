import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Host } from '../../../src/checkpoint/host.ts';
import { NotFound } from '../../../src/errors.ts';
import { list } from '../../../src/inventory/list.ts';

/** A host without containers, whose containerd knows these namespaces. */
function empty(namespaces: string[]): Host {
  return {
    root: 'tank/stasis',
    zfs: { list: async () => [] },
    catalog: { all: () => [] },
    storing: { all: () => [], find: () => undefined },
    fills: { of: () => undefined },
    containerd: {
      namespaces: async () => namespaces,
      namespace: () => ({
        containers: { list: async () => ({ containers: [] }) },
        tasks: { list: async () => ({ tasks: [] }) },
      }),
    },
  } as unknown as Host;
}

test('an unknown namespace is an error; a known one and default, which is made when it is used, are empty', async () => {
  const host = empty(['k8s.io']);
  const asked = { namespace: 'typo', container: '', allNamespaces: false };
  await assert.rejects(list(host, asked), (error: NotFound) => {
    assert.ok(error instanceof NotFound);
    assert.equal(error.message, 'there is no namespace typo');
    return error.reason === 'namespace-not-found';
  });
  assert.deepEqual(await list(host, { ...asked, namespace: 'k8s.io' }), { containers: [] });
  assert.deepEqual(await list(host, { ...asked, namespace: 'default' }), { containers: [] });
  assert.deepEqual(await list(host, { ...asked, allNamespaces: true }), { containers: [] });
  await assert.rejects(
    list(host, { ...asked, namespace: 'k8s.io', container: 'web' }),
    /no container web in namespace k8s\.io/,
  );
});

test("a disk is as old as its dataset, not as the container: a rewind's is new", async () => {
  const dataset = 'tank/stasis/containers/default/web.2';
  const snapshot = { created: { seconds: 1n, nanos: 0 }, generation: 2, labels: {} };
  const row = { name: dataset, properties: new Map([['creation', { value: '1767323045' }]]) };
  const host = {
    ...empty([]),
    zfs: { list: async () => [row] },
    catalog: { all: () => [], of: () => [], byId: () => undefined },
    store: {
      findContainer: () => ({ dataset }),
      datasets: () => [{ dataset, origin: '', snapshot }],
      strangers: { foreign: () => [] },
    },
    containerd: {
      namespace: () => ({
        containers: { list: async () => ({ containers: [{ id: 'web', snapshotKey: 'web' }] }) },
        tasks: { list: async () => ({ tasks: [] }) },
      }),
    },
  } as unknown as Host;
  const { containers } = await list(host, { namespace: 'default', container: '', allNamespaces: false });
  assert.deepEqual(containers[0]?.disks[0]?.createdAt, { seconds: 1767323045n, nanos: 0 });
  assert.equal(containers[0]?.disks[0]?.anew, false, 'whatever has become of the checkpoint');
  Object.assign(snapshot, { generation: 1 });
  const again = await list(host, { namespace: 'default', container: '', allNamespaces: false });
  assert.equal(again.containers[0]?.disks[0]?.anew, true);
});
