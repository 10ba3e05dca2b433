import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { ENDING } from '../../../src/sys/signals.ts';

const module = new URL('../../../src/sys/signals.ts', import.meta.url).href;

test('signals that end a process unasked do nothing, and what it starts has them as usual', async () => {
  const program = `
    import { spawnSync } from 'node:child_process';
    import { outlastSignals, ENDING } from ${JSON.stringify(module)};
    outlastSignals();
    for (const signal of ENDING) process.kill(process.pid, signal);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const { signal } = spawnSync('/bin/sh', ['-c', 'kill -HUP $$']);
    console.log('lives', signal);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  assert.deepEqual({ code, signal, out }, { code: 0, signal: null, out: 'lives SIGHUP\n' });
  assert.ok(ENDING.length > 0 && !ENDING.includes('SIGTERM'));
});
