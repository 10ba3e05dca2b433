import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { exec } from '../../../src/sys/command.ts';

suite('a program that does not end', () => {
  test('is killed at its deadline', async () => {
    const result = await exec('sleep', ['1000'], { timeoutMs: 50 });
    assert.deepEqual([result.timedOut, result.cancelled, result.signal], [true, false, 'SIGKILL']);
  });

  // Its child, which nobody kills, keeps the pipes open: as one does that waits in the kernel for a dead disk.
  test('and is not gone when it was killed holds nobody up', async () => {
    const { signal, stdout, timedOut } = await exec('sh', ['-c', 'sleep 1000 & echo $!; wait'], {
      timeoutMs: 500,
      goneMs: 100,
    });
    const child = Number(stdout);
    assert.ok(child > 0, stdout);
    process.kill(child, 'SIGKILL');
    assert.deepEqual([timedOut, signal], [true, undefined]);
  });

  test('is killed when its caller has enough', async () => {
    const { cancelled, timedOut } = await exec('sleep', ['1000'], { signal: AbortSignal.timeout(50) });
    assert.deepEqual([cancelled, timedOut], [true, false]);
  });
});
