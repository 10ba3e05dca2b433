// What setup writes for containerd, read by the containerd that it is for: `containerd config dump` loads the files as the
// daemon does, and says what is in force.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { parse } from 'smol-toml';
import { containerdChange } from '../../../src/setup/containerd-config.ts';
import { must, stack } from '../support/stack.ts';

type Tree = { readonly [key: string]: Tree | undefined } & { readonly root?: string };

const version = / v?(\d+\.\d+\.\d+)/.exec(await must('containerd', ['--version']))?.[1] ?? '';
const [major = 0, minor = 0] = version.split('.').map(Number);
const SOCKET = '/run/stasis/stasisd.sock';

/** The administrator's part, which has to be in force afterwards as it was before. */
const CRI_2 = 'io.containerd.grpc.v1.cri';
const CRI_3 = 'io.containerd.cri.v1.runtime';

interface Host {
  readonly name: string;
  readonly main?: string;
  /** A file of the administrator's, imported by the main one. */
  readonly other?: string;
  /** The lowest version of containerd that takes such files. */
  readonly from?: readonly [major: number, minor: number];
  /** The dump has to hold these values, by their path. */
  readonly keeps?: readonly (readonly [path: readonly string[], value: unknown])[];
}

const hosts: Host[] = [
  { name: 'no file' },
  { name: 'an empty file', main: '' },
  { name: 'a file without a version', main: 'root = "/srv/c"\n', keeps: [[['root'], '/srv/c']] },
  {
    name: 'the file of version 2 that Debian installs, with settings for the CRI',
    main: `version = 2\n\n[plugins]\n  [plugins."${CRI_2}"]\n    [plugins."${CRI_2}".cni]\n      bin_dir = "/usr/lib/cni"\n`,
    keeps: major < 2 ? [[['plugins', CRI_2, 'cni', 'bin_dir'], '/usr/lib/cni']] : [],
  },
  {
    name: 'a file that was edited by hand, with comments, DOS line ends and a runtime',
    main: [
      'version = 2 # two',
      '# mine',
      'root = "/srv/c"',
      `[plugins."${CRI_2}".containerd.runtimes.mine]`,
      '  runtime_type = "io.containerd.runc.v2"',
      '',
    ].join('\r\n'),
    keeps: [
      [['root'], '/srv/c'],
      [
        ['plugins', major < 2 ? CRI_2 : CRI_3, 'containerd', 'runtimes', 'mine', 'runtime_type'],
        'io.containerd.runc.v2',
      ],
    ],
  },
  {
    name: 'a file that imports another, which has a proxy plugin',
    main: 'version = 2\nimports = ["FOLDER/other.toml"]\n',
    other: 'version = 2\n[proxy_plugins.mine]\n  type = "snapshot"\n  address = "/run/mine.sock"\n',
    keeps: [[['proxy_plugins', 'mine', 'address'], '/run/mine.sock']],
  },
  {
    name: 'a file of version 3',
    from: [2, 0],
    main: `version = 3\nroot = "/srv/c"\n[plugins."${CRI_3}".containerd.runtimes.mine]\n  runtime_type = "io.containerd.runc.v2"\n`,
    keeps: [
      [['root'], '/srv/c'],
      [['plugins', CRI_3, 'containerd', 'runtimes', 'mine', 'runtime_type'], 'io.containerd.runc.v2'],
      [['plugins', CRI_3, 'containerd', 'runtimes', 'runc', 'runtime_type'], 'io.containerd.runc.v2'],
    ],
  },
  {
    name: 'a file of version 4',
    from: [2, 3],
    main: `version = 4\nroot = "/srv/c"\n[plugins."${CRI_3}".containerd.runtimes.mine]\n  runtime_type = "io.containerd.runc.v2"\n`,
    keeps: [
      [['root'], '/srv/c'],
      [['plugins', CRI_3, 'containerd', 'runtimes', 'mine', 'runtime_type'], 'io.containerd.runc.v2'],
    ],
  },
];

function takes({ from = [1, 6] }: Host): boolean {
  return major > from[0] || (major === from[0] && minor >= from[1]);
}

function at(tree: Tree, path: readonly string[]): unknown {
  return path.reduce<Tree | undefined>((part, key) => part?.[key], tree);
}

/** What containerd has in force with these files. */
async function dump(path: string): Promise<Tree> {
  return parse(await must('containerd', ['--config', path, 'config', 'dump'])) as unknown as Tree;
}

suite(`setup's files in containerd ${version}`, () => {
  for (const host of hosts.filter(takes)) {
    test(`give it stasis beside ${host.name}, and leave what was there`, async (t) => {
      const folder = mkdtempSync(join(stack.state, 'data/tmp/setup-'));
      t.after(() => rmSync(folder, { recursive: true }));
      const path = join(folder, 'config.toml');
      const other = join(folder, 'other.toml');
      const here = (text: string): string =>
        text.replaceAll('/etc/containerd', folder).replaceAll('FOLDER', folder);
      if (host.other !== undefined) writeFileSync(other, host.other);
      const main = host.main === undefined ? undefined : here(host.main);
      const imported = host.other === undefined ? [] : [{ path: other, text: host.other }];
      const change = containerdChange({ path, text: main, imported, missing: [] }, version, SOCKET, true);
      assert.notEqual(change.main, undefined, 'none of these imports our folder');
      writeFileSync(path, here(change.main ?? ''));
      mkdirSync(join(folder, 'conf.d'));
      writeFileSync(join(folder, 'conf.d/stasis.toml'), here(change.dropIn));

      const found = await dump(path);
      assert.equal(at(found, ['proxy_plugins', 'stasis', 'address']), SOCKET);
      assert.equal(at(found, ['proxy_plugins', 'stasis', 'type']), 'snapshot');
      if (!version.startsWith('1.6.')) {
        assert.equal(at(found, ['proxy_plugins', 'stasis-diff', 'type']), 'diff');
      }
      for (const [key, value] of host.keeps ?? []) {
        assert.deepEqual(at(found, key), value, `${key.join('.')} is in force as it was`);
      }
    });
  }
});
