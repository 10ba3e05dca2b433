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
