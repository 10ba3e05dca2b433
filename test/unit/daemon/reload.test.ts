import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaults, parseConfig } from '../../../src/config/config.ts';
import { applyChanges } from '../../../src/daemon/reload.ts';
import { createLogger } from '../../../src/log.ts';

test('a reload takes over what may change while stasisd runs, and names what needs a restart', () => {
  const config = structuredClone(defaults);
  const next = parseConfig(
    '[log]\nlevel = "debug"\n[checkpoint]\ntimeout = 5\ncache = 1\n[daemon]\nrun_dir = "/run/other"\n[shim]\nsharing = "pod"\n',
    'config.toml',
  );
  assert.deepEqual(applyChanges(config, next), {
    applied: ['checkpoint.timeout', 'log.level'],
    pending: ['daemon.run_dir', 'checkpoint.cache'],
  });
  assert.deepEqual(config, {
    ...defaults,
    checkpoint: { ...defaults.checkpoint, timeout: 5 },
    log: { level: 'debug' },
  });
  assert.deepEqual(applyChanges(config, config), { applied: [], pending: [] });
});

test('a logger whose level is changed follows at once', () => {
  const lines: string[] = [];
  const config = { level: 'info' as 'info' | 'debug' };
  const log = createLogger(
    (line) => lines.push(line),
    () => config.level,
  ).with({ a: 1 });
  log.debug('one');
  config.level = 'debug';
  log.debug('two');
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /msg=two a=1/);
});
