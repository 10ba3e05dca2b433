import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const url = (path: string): string =>
  JSON.stringify(new URL(`../../../src/sys/${path}`, import.meta.url).href);

test('a process that refuses a core file is not dumped, and what it starts is as usual', () => {
  const program = `
    import { spawnSync } from 'node:child_process';
    import { refuseCoreFile } from ${url('core-file.ts')};
    import { native } from ${url('libc.ts')};
    const isDumpable = () => native('int prctl(int option, long a, long b, long c, long d)')(3, 0, 0, 0, 0);
    const before = isDumpable();
    const done = refuseCoreFile();
    const started = spawnSync('/bin/sh', ['-c', 'test -O /proc/$$/stat && head -c 1 /proc/self/environ | wc -c'], { encoding: 'utf8' });
    console.log(JSON.stringify([before, done, isDumpable(), started.stdout.trim()]));
  `;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  assert.deepEqual(JSON.parse(stdout), [1, true, 0, '1']);
});
