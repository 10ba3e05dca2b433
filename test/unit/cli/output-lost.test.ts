import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const main = join(import.meta.dirname, '../../../src/cli/main.ts');

/** `stasis help` with its standard output in a file. */
function helpInto(path: string): { status: number | null; stderr: string } {
  const output = openSync(path, 'w');
  try {
    const { status, stderr } = spawnSync(process.execPath, [main, 'help'], {
      stdio: ['ignore', output, 'pipe'],
      encoding: 'utf8',
    });
    return { status, stderr };
  } finally {
    closeSync(output);
  }
}

test('output that cannot be written is a failure, and said', () => {
  const { status, stderr } = helpInto('/dev/full');
  assert.equal(status, 1);
  assert.match(stderr, /^stasis: the output could not be written: ENOSPC/m);
  assert.deepEqual(helpInto('/dev/null'), { status: 0, stderr: '' });
});
