import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { defaults, loadConfig, parseConfig } from '../../../src/config/config.ts';
import { InvalidArgument } from '../../../src/errors.ts';

function fails(text: string, pattern: RegExp): void {
  assert.throws(
    () => parseConfig(text, '/etc/stasis/config.toml'),
    (error) => error instanceof InvalidArgument && pattern.test(error.message),
  );
}

suite('the configuration', () => {
  test('is all defaults when the file is empty or missing', () => {
    assert.deepEqual(parseConfig('', 'x'), defaults);
    assert.deepEqual(loadConfig('/nonexistent/config.toml', false), defaults);
  });

  test('that was named and is missing is an error that names it', () => {
    assert.throws(() => loadConfig('/nonexistent/config.toml', true), /\/nonexistent\/config.toml/);
  });

  test('changes what it sets and nothing else', () => {
    const config = parseConfig('[shim]\nsharing = "pod"\n[zfs]\nroot = "tank/s"\n', 'x');
    assert.deepEqual(config, {
      ...defaults,
      shim: { ...defaults.shim, sharing: 'pod' },
      zfs: { ...defaults.zfs, root: 'tank/s' },
    });
  });

  test('with an unknown key names file, line and key', () => {
    fails('[zfs]\nroot = "tank"\nroott = "tank"\n', /config\.toml:3: unknown key zfs\.roott/);
    fails('[zfz]\n', /config\.toml:1: unknown key zfz/);
  });

  test('with a value of the wrong type or choice says what it must be', () => {
    fails('[shim]\nidle_timeout = "30"\n', /:2: shim\.idle_timeout must be a number/);
    fails('[shim]\nsharing = "host"\n', /:2: shim\.sharing must be one of namespace, pod, container/);
    fails('[shim]\nidle_timeout = -1\n', /must not be negative/);
    fails('shim = 3\n', /must be a table/);
  });

  test('that is no TOML names the line', () => {
    fails('[zfs]\nroot = \n', /config\.toml:2:/);
  });

  test('cannot reach into the prototype', () => {
    fails('[__proto__]\nx = 1\n', /unknown key|not valid/);
    fails('[zfs]\nconstructor = "x"\n', /unknown key|must be/);
  });
});
