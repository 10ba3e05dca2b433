import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

test('an error that nobody caught is told with its place, and the process goes on', () => {
  const script = `
    import { createLogger } from './src/log.ts';
    import { surviveMistakes } from './src/mistakes.ts';
    surviveMistakes(createLogger((line) => process.stdout.write(line)));
    setTimeout(() => { throw new Error('a mistake'); }, 1);
    setTimeout(() => void Promise.reject(new Error('another')), 5);
    setTimeout(() => process.stdout.write('goes on'), 20);
  `;
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    cwd: `${import.meta.dirname}/../..`,
    encoding: 'utf8',
  });
  assert.equal(status, 0);
  assert.match(stdout, /unexpected error.*a mistake.*stack=/);
  assert.match(stdout, /unexpected error.*another/);
  assert.match(stdout, /goes on$/);
});
