import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { parse } from 'smol-toml';
import { StasisError } from '../../../src/errors.ts';
import {
  containerdChange,
  contentOf,
  DROP_IN,
  namesDropIn,
  withoutImport,
} from '../../../src/setup/containerd-config.ts';

const MAIN = '/etc/containerd/config.toml';
const SOCKET = '/run/stasis/stasisd.sock';

type Tree = { [key: string]: Tree } & { version?: number; imports?: string[]; default?: string[] };

function change(
  version: string,
  text?: string,
  imported: { path: string; text: string }[] = [],
  mapsIds = false,
) {
  const { dropIn, main, notes } = containerdChange(
    { path: MAIN, text, imported, missing: [] },
    version,
    SOCKET,
    mapsIds,
  );
  return { dropIn: plain(dropIn) as Tree, main, notes };
}

/** A document as plain objects: smol-toml's have no prototype. */
function plain(text: string): unknown {
  return JSON.parse(JSON.stringify(parse(text)));
}

/** Snapshotters that unpack_config names. */
function unpacks(dropIn: Tree): unknown[] {
  const entries = dropIn['plugins']?.['io.containerd.transfer.v1.local']?.['unpack_config'] as unknown;
  return (entries as { snapshotter: string }[]).map(({ snapshotter }) => snapshotter);
}

suite("setup's file for containerd", () => {
  test('says what containerd-config.toml documents', async () => {
    const documented = await readFile(join(import.meta.dirname, '../../../containerd-config.toml'), 'utf8');
    assert.deepEqual(change('1.7.24').dropIn, plain(documented));
  });

  test('announces remap-ids where ids can be mapped and containerd asks, and never rebase', () => {
    const announced = (version: string, mapsIds: boolean): unknown =>
      change(version, 'version = 2\n', [], mapsIds).dropIn['proxy_plugins']?.['stasis']?.['capabilities'];
    for (const version of ['1.6.20', '1.7.24', '2.1.9']) assert.equal(announced(version, false), undefined);
    for (const version of ['1.6.20', '1.7.24']) assert.equal(announced(version, true), undefined);
    assert.deepEqual(announced('2.1.9', true), ['remap-ids']);
  });

  test('has no differ and no transfer service for 1.6, which would panic', () => {
    const { dropIn } = change('1.6.20', 'version = 2\n');
    assert.deepEqual(Object.keys(dropIn), ['version', 'proxy_plugins']);
    assert.deepEqual(Object.keys(dropIn['proxy_plugins'] ?? {}), ['stasis']);
  });

  test('never has a higher version than the main file, which 2.x refuses', () => {
    assert.equal(change('2.1.9', 'version = 2\n').dropIn.version, 2);
    assert.equal(change('2.1.9', 'version = 3\n').dropIn.version, 3);
    assert.equal(change('2.3.4', 'version = 4\n').dropIn.version, 3);
    assert.equal(change('1.7.24', 'version = 3\n').dropIn.version, 2);
    assert.equal(change('2.1.9', 'disabled_plugins = ["cri"]\n').dropIn.version, undefined);
    assert.equal(change('1.7.24', '').dropIn.version, undefined, 'no version at all means 1');
  });

  test('names the runtime for the CRI where 2.x merges tables, and leaves 1.x its runc', () => {
    const runtime = { runtime_type: 'io.containerd.stasis.v2', snapshotter: 'stasis' };
    const at = (tree: Tree, name: string): unknown => tree['plugins']?.[name]?.['containerd']?.['runtimes'];
    assert.deepEqual(at(change('2.1.9', 'version = 3\n').dropIn, 'io.containerd.cri.v1.runtime'), {
      stasis: runtime,
    });
    assert.deepEqual(at(change('2.1.9', 'version = 2\n').dropIn, 'io.containerd.grpc.v1.cri'), {
      stasis: runtime,
    });
    const old = change('1.7.24', 'version = 2\n');
    assert.equal(at(old.dropIn, 'io.containerd.grpc.v1.cri'), undefined);
    assert.match(old.notes.join(), /for Kubernetes/);
    const without = change('1.7.24', 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n');
    assert.deepEqual(without.notes, []);
  });

  test("repeats the administrator's lists, which ours would mask", () => {
    const text = `version = 2
[plugins."io.containerd.service.v1.diff-service"]
  default = ["other", "walking"]
[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_downloads = 7
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    snapshotter = "native"
`;
    const { dropIn } = change('1.7.24', text);
    const plugins = dropIn['plugins'] ?? {};
    assert.deepEqual(plugins['io.containerd.service.v1.diff-service']?.default, [
      'stasis-diff',
      'other',
      'walking',
    ]);
    assert.equal(
      plugins['io.containerd.transfer.v1.local']?.['max_concurrent_downloads'],
      7,
      '1.7 replaces whole tables',
    );
    assert.deepEqual(unpacks(dropIn), ['stasis', 'native']);
    const newer = change('2.1.9', text).dropIn;
    assert.deepEqual(Object.keys(newer['plugins']?.['io.containerd.transfer.v1.local'] ?? {}), [
      'unpack_config',
    ]);
    assert.deepEqual(unpacks(newer), ['stasis', 'native']);
    const dropped = change('2.1.9', 'version = 2\nimports = ["/x.toml"]\n', [{ path: '/x.toml', text }]);
    assert.deepEqual(unpacks(dropped.dropIn), ['stasis', 'native'], 'in the files that are imported too');
  });
});

suite("containerd's own file", () => {
  const FOLDER = '"/etc/containerd/conf.d/*.toml"';
  const IMPORT = `"${DROP_IN}"`;
  const cases: [name: string, before: string | undefined, after: string | undefined][] = [
    ['is left alone if it imports the folder', `version = 2\nimports = [${FOLDER}]\n`, undefined],
    ['is left alone if it imports our file', `imports = ["${DROP_IN}"]\n`, undefined],
    ['is left alone if it imports by a relative path', 'imports = ["conf.d/*.toml"]\n', undefined],
    [
      'gets its imports after its version',
      'version = 2\nroot = "/x"\n',
      `version = 2\nimports = [${IMPORT}]\nroot = "/x"\n`,
    ],
    [
      'gets its imports before any table',
      '# mine\n[grpc]\n  uid = 0\n',
      `imports = [${IMPORT}]\n# mine\n[grpc]\n  uid = 0\n`,
    ],
    [
      'keeps its imports, comments and order',
      'version = 3 # three\n  imports = [ "/a.toml", # a\n "/b.toml" ]\n[grpc]\n',
      `version = 3 # three\n  imports = [${IMPORT},  "/a.toml", # a\n "/b.toml" ]\n[grpc]\n`,
    ],
    ['may have an empty list', 'imports = []\nversion = 2\n', `imports = [${IMPORT}]\nversion = 2\n`],
    ['keeps its line ends', 'version = 2\r\n[grpc]\r\n', `version = 2\r\nimports = [${IMPORT}]\n[grpc]\r\n`],
  ];
  for (const [name, before, after] of cases) {
    test(name, () => assert.equal(change('2.1.9', before).main, after));
  }

  test('is made where there was none', () => {
    const { main = '' } = change('1.7.24');
    assert.deepEqual(plain(main), { version: 2, imports: ['/etc/containerd/conf.d/*.toml'] });
  });

  const refused: [name: string, text: string, message: RegExp][] = [
    ['is no TOML', 'version = \n', /config\.toml:1:\d+: not valid TOML/],
    [
      'has our proxy plugin already',
      '[proxy_plugins.stasis]\ntype = "snapshot"\n',
      /has a proxy plugin stasis already/,
    ],
    ['cannot be changed by a line', "imports = '''x'''\n", /cannot be added to safely/],
  ];
  for (const [name, text, message] of refused) {
    test(`is refused, with a remedy, where it ${name}`, () => {
      assert.throws(
        () => change('2.1.9', text),
        (error) => error instanceof StasisError && message.test(error.message) && error.remedy !== undefined,
      );
    });
  }

  test('of a containerd before 1.6 is refused', () => {
    assert.throws(() => change('1.5.9', ''), /containerd 1\.5\.9 is too old/);
  });
});

test('our import goes out of a file that was edited since, and nothing else of it', () => {
  const ours = '"/etc/containerd/conf.d/stasis.toml"';
  const edited = (imports: string): string => `version = 2\n${imports}# mine\n[debug]\n  level = "warn"\n`;
  for (const [before, after] of [
    [`imports = [${ours}]\n`, ''],
    [`imports = [${ours}, "/etc/mine.toml"]\n`, 'imports = ["/etc/mine.toml"]\n'],
    [`imports = ["/etc/mine.toml", ${ours}]\n`, undefined],
    [`imports = ['/etc/containerd/conf.d/stasis.toml'] # why\n`, 'imports = [] # why\n'],
  ] as const) {
    const now = withoutImport(edited(before));
    if (after !== undefined) assert.equal(now, edited(after));
    else assert.deepEqual(plain(now ?? ''), plain(edited('imports = ["/etc/mine.toml"]\n')));
    assert.equal(namesDropIn(now ?? ours), false);
  }
  for (const other of ['imports = ["/etc/containerd/conf.d/*.toml"]\n', '', 'imports = [\n'])
    assert.equal(withoutImport(edited(other)), undefined);
  const lines = `imports = [\n  ${ours},\n]\n`;
  assert.equal(withoutImport(edited(lines)), undefined, 'a list over several lines is left to its owner');
  assert.equal(namesDropIn(edited(lines)), true);
});

test('a drop-in says what it holds', () => {
  assert.equal(
    contentOf(
      containerdChange({ path: MAIN, text: '', imported: [], missing: [] }, '1.6.20', SOCKET, false).dropIn,
    ),
    'snapshotter',
  );
  const text = 'version = 2\n';
  const on = (version: string): string =>
    contentOf(
      containerdChange({ path: MAIN, text, imported: [], missing: [] }, version, SOCKET, false).dropIn,
    );
  assert.equal(on('1.7.24'), 'snapshotter and differ');
  assert.equal(on('2.1.4'), 'snapshotter, differ and runtime');
});

test('an import of a file that is not there is told where containerd would not start', () => {
  const text = 'version = 2\nimports = ["/etc/gone.toml"]\n';
  const missing = ['/etc/gone.toml'];
  const on = (version: string) =>
    containerdChange({ path: MAIN, text, imported: [], missing }, version, SOCKET, false);
  assert.throws(() => on('1.7.24'), /imports \/etc\/gone\.toml, which is not there/);
  assert.ok(on('2.1.4').dropIn.length > 0);
});
