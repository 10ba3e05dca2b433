import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
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

test('a reader that leaves early ends it, without a word', () => {
  const script = `("$0" "$1" help; echo $? >&2) | true`;
  const { stdout, stderr } = spawnSync('sh', ['-c', script, process.execPath, main], { encoding: 'utf8' });
  assert.deepEqual([stdout, stderr], ['', '0\n']);
});

test('into a pipe that does not block, and is full, goes all of it', () => {
  // A pipe of 4 KiB (fcntl(2), F_SETPIPE_SZ) that holds some already, and is read late.
  const script = `use Fcntl; pipe(R, W); fcntl(W, 1031, 4096); syswrite(W, "x" x 3000);
    fcntl(W, F_SETFL, O_WRONLY | O_NONBLOCK); if (!fork) { open(STDOUT, ">&W"); close R; exec @ARGV }
    close W; sleep 1; print while sysread(R, $_, 100)`;
  const help = [process.execPath, main, 'help'];
  const { stdout } = spawnSync('perl', ['-e', script, '--', ...help], { encoding: 'utf8' });
  const expected = execFileSync(process.execPath, help.slice(1), { encoding: 'utf8' });
  assert.equal(stdout, 'x'.repeat(3000) + expected);
});
