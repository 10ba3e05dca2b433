import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

const script = join(import.meta.dirname, '../../scripts/lib/sweep.sh');

test('a container that was removed after its shim was killed is still known as this stack’s, so that its FIFOs go', (t) => {
  const state = mkdtempSync(join(tmpdir(), 'sweep-'));
  t.after(() => rmSync(state, { recursive: true }));
  mkdirSync(join(state, 'log'));
  const line = 'time="2026-01-01T00:00:00Z" level=info msg="shim disconnected" id=web.1 namespace=default\n';
  writeFileSync(join(state, 'log/containerd.log'), line);
  const saw = (id: string) =>
    spawnSync('bash', ['-c', '. "$0"; STATE=$1; containerd_saw "$2"', script, state, id]).status;
  assert.deepEqual([saw('web.1'), saw('web'), saw('web-1')], [0, 1, 1]);
});
