import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InitProcess } from '../../../shim/process/init.ts';
import type { OciRuntime } from '../../../src/oci/types.ts';

test('who waits for the end of a restore is answered when it is deleted before it was started', async () => {
  const init = new InitProcess({
    state: undefined,
    id: 'web',
    bundle: '/nonexistent',
    stdio: { stdin: '', stdout: '', stderr: '', terminal: false },
    runtime: {} as unknown as OciRuntime, // which knows nothing of it yet
    io: { containerId: 'web', namespace: 'default', owner: { uid: 0, gid: 0 } },
    socketFolder: '/nonexistent',
    noPivot: false,
    noNewKeyring: false,
    startsSpecially: false,
    restore: { imageDir: '/nonexistent', workDir: '/nonexistent', fill: undefined },
  });
  const never = AbortSignal.timeout(5000);
  const waited = init.wait(never);
  await init.delete();
  await waited;
  await init.wait(never); // nor does one that comes later
  assert.equal(init.exit, undefined);
});
