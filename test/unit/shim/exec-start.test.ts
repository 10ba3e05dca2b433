import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { OciRuntime } from '../../../src/oci/types.ts';
import type { IoContext } from '../../../shim/stdio/index.ts';
import { ExecProcess } from '../../../shim/process/exec.ts';

let bundle: string;
before(() => (bundle = mkdtempSync(join(tmpdir(), 'stasis-exec-'))));
after(() => rmSync(bundle, { recursive: true }));

/** @param pid of the process that the runtime makes; undefined where it fails, after it has written the file */
function execOf(pid: number | undefined): ExecProcess {
  const runtime = {
    exec: async ({ pidFile }: { pidFile: string }) => {
      writeFileSync(pidFile, String(pid ?? 7));
      if (pid === undefined) throw new Error('exec failed');
    },
  } as unknown as OciRuntime;
  return new ExecProcess({
    id: 'e',
    containerId: 'web',
    bundle,
    stdio: { stdin: '', stdout: '', stderr: '', terminal: false },
    runtime,
    io: { containerId: 'web', namespace: 'default' } as IoContext,
    socketFolder: bundle,
    init: () => 1,
    process: {},
  });
}

test('what a start has made is known to a worker that follows until it is written down', async () => {
  const process = execOf(4321);
  await process.start();
  assert.equal(process.pid, 4321);
  assert.equal(
    execOf(undefined).pidOfStart(),
    4321,
    'as another worker asks, whose predecessor was killed here',
  );
  assert.equal(execOf(undefined).pidOfStart(), 4321, 'and the one after that');
  process.startNoted();
  assert.equal(execOf(undefined).pidOfStart(), undefined);
  assert.deepEqual(readdirSync(bundle), []);
});

test('nothing is left of a start that failed, and what an earlier one left counts for nothing', async () => {
  writeFileSync(join(bundle, 'e.pid'), '1');
  await assert.rejects(execOf(undefined).start(), /exec failed/);
  assert.deepEqual(readdirSync(bundle), []);
});
