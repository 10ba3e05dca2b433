import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Host } from '../../../src/checkpoint/host.ts';
import { NotFound } from '../../../src/errors.ts';
import { list } from '../../../src/inventory/list.ts';
import { controlOf } from '../../../src/shims/list.ts';

/** A host without containers, whose containerd knows these namespaces. */
function empty(namespaces: string[]): Host {
  return {
    root: 'tank/stasis',
    config: { daemon: { run_dir: '/nowhere' } },
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

test('a container whose shim has a guard and no worker is not one without a task, and why is said', async (t) => {
  const runDir = mkdtempSync(join(tmpdir(), 'list-'));
  const socket = join(runDir, 's', 'a'.repeat(20));
  mkdirSync(join(runDir, 's'));
  mkdirSync(join(runDir, 'tasks/default/web'), { recursive: true });
  writeFileSync(join(runDir, 'tasks/default/web/address'), `unix://${socket}`);
  let status: object = { pid: 7, version: '1', protocol: 1, restarts: 5, lastEnd: { why: 'broken', at: 0 } };
  const guard = createServer((client) =>
    client.once('data', () => client.end(`${JSON.stringify({ status })}\n`)),
  );
  await new Promise<void>((resolve) => guard.listen(controlOf(socket), resolve));
  t.after(() => {
    guard.close();
    rmSync(runDir, { recursive: true });
  });
  const host = {
    ...empty([]),
    config: { daemon: { run_dir: runDir } },
    catalog: { all: () => [], of: () => [], byId: () => undefined },
    store: { findContainer: () => undefined, datasets: () => [], strangers: { foreign: () => [] } },
    containerd: {
      namespace: () => ({
        containers: { list: async () => ({ containers: [{ id: 'web' }, { id: 'none' }] }) },
        tasks: { list: async () => ({ tasks: [] }) },
      }),
    },
  } as unknown as Host;
  const request = { namespace: 'default', container: '', allNamespaces: false };
  const told = async () =>
    (await list(host, request)).containers.map(({ name, status, shimSilent }) => [name, status, shimSilent]);
  assert.deepEqual(await told(), [
    ['none', '', ''],
    ['web', 'unknown', 'its guard (pid 7) has no worker: broken'],
  ]);
  status = { ...status, worker: { pid: 8, version: '1' } };
  assert.deepEqual(await told(), [
    ['none', '', ''],
    ['web', '', ''],
  ]);
});
