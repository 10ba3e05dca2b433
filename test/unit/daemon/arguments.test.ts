import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { answerTo } from '../../../src/daemon/arguments.ts';

test('stasisd serves only without arguments; it was started by whoever asked for its help', () => {
  assert.equal(answerTo([]), undefined);
  assert.match(answerTo(['--help'])?.stdout ?? '', /^Usage: stasisd/);
  assert.match(answerTo(['-v'])?.stdout ?? '', /^stasisd \S+\n$/);
  assert.deepEqual(answerTo(['--version', '--frob']), {
    stdout: '',
    stderr: 'stasisd: unknown argument "--frob"\n  next: see `stasisd --help`\n',
    exit: 2,
  });
});

test('the program answers and ends, whatever its configuration', () => {
  const program = join(import.meta.dirname, '../../../src/daemon/main.ts');
  const env = { ...process.env, STASIS_CONFIG: '/nowhere' };
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--version'], {
    env,
    encoding: 'utf8',
  });
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^stasisd /);
  assert.equal(spawnSync(process.execPath, [program, '--frob'], { env }).status, 2);
});
