import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Severity } from '../../../src/proto/gen/stasis/stasis.ts';
import { against, type Handlers } from './harness.ts';

test('doctor prints each obstacle with its way out, and fails only where memory cannot be dumped', async () => {
  const obstacle = (name: string, severity: Severity) => ({
    name,
    severity,
    subject: `process 7 (node), descriptor ${severity}`,
    message: 'is in the way',
    remedy: 'take it away',
  });
  const answering = (...obstacles: ReturnType<typeof obstacle>[]): Partial<Handlers> => ({
    doctor: async () => ({ obstacles }),
  });
  const warned = await against(answering(obstacle('bind-mount', Severity.SEVERITY_WARNING)), [
    'doctor',
    'web',
  ]);
  assert.deepEqual(warned, {
    code: 0,
    stdout:
      'warning: process 7 (node), descriptor 0: is in the way [bind-mount]\n  way out: take it away\n' +
      'web: can be checkpointed and restored, with one warning\n',
    stderr: '',
  });
  const bad = answering(
    obstacle('io-uring', Severity.SEVERITY_ERROR),
    obstacle('bind-mount', Severity.SEVERITY_WARNING),
  );
  const refused = await against(bad, ['doctor', 'web']);
  assert.equal(refused.code, 5);
  assert.match(refused.stdout, /^error: process 7 \(node\), descriptor 1: is in the way \[io-uring\]/);
  assert.match(refused.stderr, /^stasis: the memory of container web cannot be dumped: one obstacle\n/);
  const document = await against(bad, ['doctor', '--json']);
  assert.equal(document.code, 5);
  const parsed = JSON.parse(document.stdout) as Record<string, unknown>;
  assert.equal(parsed['checkpointable'], false);
  assert.equal((parsed['obstacles'] as unknown[]).length, 2);
  assert.equal((parsed['error'] as { reason: string }).reason, 'not-checkpointable');
  assert.equal((await against(bad, ['doctor', 'web', '--quiet'])).stdout, 'io-uring\nbind-mount\n');
});
