import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  defaults,
  loadConfig,
  locatedProblems,
  parseConfig,
  parseDocument,
} from '../../../src/config/config.ts';
import { settings } from '../../../src/config/origins.ts';
import { eachKey } from '../../../src/config/schema.ts';
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
    const { runtime, ...others } = loadConfig('/nonexistent/config.toml', false);
    const { runtime: _, ...expected } = defaults;
    assert.deepEqual(others, expected);
    assert.match(runtime.criu, /criu$/, 'which CRIU an empty string means is decided once');
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
    fails('# zfs.roott = 1\nlog.level = "info"\nzfs.roott = 1\n', /config\.toml:3: unknown key zfs\.roott/);
    fails('shim = { idle = 3 }', /config\.toml:1: unknown key shim\.idle/);
  });

  test('with a slip of the pen is told what was meant', () => {
    assert.throws(
      () => parseConfig('[shim]\nidle_timeoutt = 3\n', 'x'),
      (error) => error instanceof InvalidArgument && error.remedy === 'did you mean shim.idle_timeout?',
    );
  });

  test('takes as the root what ZFS takes as a dataset, a pool alone too', () => {
    for (const root of ['', 'npool', 'tank/stasis', 'tank/a b/c.d:e-f_g'])
      assert.equal(parseConfig(`zfs.root = "${root}"`, 'x').zfs.root, root);
    for (const root of [
      'bad name/',
      '/npool/stasis',
      'a//b',
      'tank/..',
      'tank/a@b',
      'tank/ä',
      '1pool/a',
      'a'.repeat(256),
    ])
      fails(
        `[zfs]\nroot = "${root}"\n`,
        /:2: zfs\.root must be a dataset's name, such as tank\/stasis, not "/,
      );
  });

  test('with a value of the wrong type, choice or size says what it must be', () => {
    fails('[shim]\nidle_timeout = "30"\n', /:2: shim\.idle_timeout must be a number of seconds, not "30"/);
    fails('[shim]\nsharing = "host"\n', /:2: shim\.sharing must be one of namespace, pod, container/);
    fails('[shim]\nidle_timeout = -1\n', /:2: .* from 0 to 86400, not -1/);
    fails('[checkpoint]\ncache = 1.5\n', /:2: checkpoint\.cache must be a whole number of MiB/);
    fails('[checkpoint]\ntimeout = nan\n', /:2: checkpoint\.timeout must be a whole number/);
    fails('[zfs]\ntrash_grace = 99999999999\n', /:2: zfs\.trash_grace must be/);
    fails('[containerd]\naddress = "run/c.sock"\n', /:2: containerd\.address must be an absolute path/);
    fails('[runtime]\noci = ""\n', /:2: runtime\.oci must be a string that is not empty/);
    fails('[runtime]\noci = "a\\u0000b"\n', /:2: runtime\.oci must be a string without NUL/);
    fails('[log]\nlevel = 2024-01-01\n', /:2: log\.level must be one of/);
    fails('shim = 3\n', /:1: shim must be a table/);
    fails('[[shim]]\n', /:1: shim must be a table/);
    fails('zfs = 2024-01-01\n', /:1: zfs must be a table/);
  });

  test('with several mistakes counts them, and lists them in the order of their lines', () => {
    const text = 'a = 1\n[zfs]\nroot = 1\n[log]\nlevel = 2\n';
    fails(text, /:1: unknown key a.*\(and 2 more/);
    assert.deepEqual(
      locatedProblems(parseDocument(text, 'f'), text, 'f').map(({ at, key }) => [at, key]),
      [
        ['f:1', 'a'],
        ['f:3', 'zfs.root'],
        ['f:5', 'log.level'],
      ],
    );
  });

  test('says of each value where it comes from', () => {
    const all = settings('/nonexistent/config.toml', false);
    assert.equal(all.length, eachKey().length);
    assert.ok(all.every(({ origin }) => origin === 'default'));
  });

  test('that is no TOML names the line', () => {
    fails('[zfs]\nroot = \n', /config\.toml:2:/);
  });

  test('cannot reach into the prototype', () => {
    fails('[__proto__]\nx = 1\n', /unknown key|not valid/);
    fails('[zfs]\nconstructor = "x"\n', /unknown key|must be/);
  });
});
