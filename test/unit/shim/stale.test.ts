import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { clearStale } from '../../../shim/container/stale.ts';
import type { ContainerRuntime } from '../../../shim/container/runtime.ts';
import { openRuntime } from '../../../src/oci/runtime.ts';
import type { Exec } from '../../../src/sys/command.ts';

/** An OCI runtime that says of its one container that it is in this state, or that it does not know it. */
function setUp(t: TestContext, status: string | undefined) {
  const root = mkdtempSync(join(tmpdir(), 'stale-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const folder = join(root, 'web');
  mkdirSync(folder);
  writeFileSync(join(folder, 'state.json'), '{}');
  const exec: Exec = (_file, args) => {
    const known = args.includes('state') && status !== undefined;
    return Promise.resolve({
      stdout: known ? JSON.stringify({ id: 'web', pid: 1, status, bundle: root }) : '',
      stderr: known ? '' : 'container does not exist',
      exitCode: known || args.includes('delete') ? 0 : 1,
      signal: null,
      timedOut: false,
    } as unknown as Awaited<ReturnType<Exec>>);
  };
  const binary = { name: 'runc', path: 'runc', version: '1.3.0', criu: true } as const;
  const record = { path: 'runc', root, systemdCgroup: false };
  const runtime: ContainerRuntime = { door: openRuntime({ exec, binary, bundle: root, root }), record };
  return { folder, runtime };
}

test('the OCI runtime’s folder of a container that has ended does not keep its name for ever', async (t) => {
  const { folder, runtime } = setUp(t, 'stopped');
  await clearStale('web', runtime);
  assert.ok(!existsSync(folder));
});

test('that of one that lives is not taken away', async (t) => {
  const { folder, runtime } = setUp(t, 'running');
  await clearStale('web', runtime);
  assert.ok(existsSync(folder));
});

test('nor that of one whose state is there and cannot be read', async (t) => {
  const { folder, runtime } = setUp(t, undefined);
  await clearStale('web', runtime);
  assert.ok(existsSync(folder));
  rmSync(join(folder, 'state.json'));
  await clearStale('web', runtime);
  assert.ok(!existsSync(folder));
});
