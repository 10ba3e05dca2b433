import assert from 'node:assert/strict';
import { cpSync, globSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { deb, project, run, scratch } from './support.ts';

const cache = process.env['STASIS_CACHE'] ?? '/var/cache/stasis';

/** The C and C++ libraries of Debian for arm64, which the package depends on. */
async function libraries(): Promise<string> {
  const folder = join(cache, 'libraries-arm64');
  const script = `set -euo pipefail
    . "$1/scripts/lib/common.sh"; . "$1/scripts/lib/prefix.sh"
    [ ! -d "$2" ] || exit 0
    rm -rf "$2.part" "$2.debs"; mkdir -p "$2.part" "$2.debs"; chown _apt "$2.debs" || true
    PREFIX_ARCH=arm64 private_apt bookworm
    cd "$2.debs"
    run_logged 'libraries for arm64' apt-get "\${APT[@]}" -qq download libc6 libstdc++6 libgcc-s1
    for deb in *.deb; do dpkg-deb -x "$deb" "$2.part"; done
    rm -rf "$2.debs"; mv "$2.part" "$2"`;
  await run('bash', ['-c', script, '-', project, folder]);
  return folder;
}

/**
 * What QEMU's user emulation is no processor for: a program that a test starts, as another Node, is this machine's kernel's
 * to refuse; process_vm_readv(2), madvise(2) of a program's own pages and the children of a subreaper are the emulator's.
 */
const notEmulated = [
  'cli/bundle',
  'cli/output',
  'cli/process',
  'shim/launcher',
  'shim/reaper',
  'sys/failures',
  'sys/native',
  'sys/process-memory',
  'sys/program-copies',
  'sys/program-pages',
  'sys/spawned-command',
  'ttrpc/readme',
].map((name) => `test/unit/${name}.test.ts`);

suite('the arm64 package, run by QEMU', () => {
  test('has a command line that works', async (t) => {
    const folder = scratch(t, 'arm64');
    await run('dpkg-deb', ['-x', deb('stasis', 'arm64'), folder]);
    const lib = join(folder, 'usr/lib/stasis');
    const stasis = async (...args: string[]): Promise<string> =>
      run(
        'qemu-aarch64-static',
        ['-L', await libraries(), join(lib, 'node'), join(lib, 'stasis.cjs'), ...args],
        {
          env: { STASIS_CONFIG: join(folder, 'etc/stasis/config.toml') },
        },
      );
    assert.match(await stasis('version'), /^stasis \d+\.\d+\.\d+ \(commit [0-9a-f]+, node 24\./);
    assert.match(await stasis('config', 'check'), /ok$/m);
    assert.match(await stasis('help', 'restore'), /^Usage: stasis restore /);
  });

  test('calls the system through koffi', async (t) => {
    const folder = scratch(t, 'arm64');
    await run('dpkg-deb', ['-x', deb('stasis', 'arm64'), folder]);
    const lib = join(folder, 'usr/lib/stasis');
    const code = `const koffi = require(${JSON.stringify(join(lib, 'node_modules/koffi'))});
      console.log(process.arch, koffi.load(null).func('int getppid()')() === process.ppid)`;
    const said = await run('qemu-aarch64-static', ['-L', await libraries(), join(lib, 'node'), '-e', code]);
    assert.equal(said, 'arm64 true\n');
  });

  test('passes the unit tests, but for those that the emulation cannot run', async (t) => {
    const folder = scratch(t, 'arm64');
    await run('dpkg-deb', ['-x', deb('stasis', 'arm64'), folder]);
    const tree = join(folder, 'tree');
    mkdirSync(tree);
    for (const name of [
      'src',
      'shim',
      'snapshotter',
      'ttrpc',
      'scripts',
      'test',
      'docs',
      'packaging',
      'package.json',
      'containerd-config.toml',
    ])
      cpSync(join(project, name), join(tree, name), { recursive: true });
    // npm's packages for arm64, as the package was made from.
    symlinkSync(join(cache, 'modules-arm64/node_modules'), join(tree, 'node_modules'));
    const files = globSync('test/unit/*/**/*.test.ts', { cwd: tree }).filter(
      (name) => !notEmulated.includes(name),
    );
    const node = join(folder, 'usr/lib/stasis/node');
    const args = ['--test', '--test-isolation=none', '--test-reporter=tap', ...files];
    // Without the variable by which the runner tells a child to report in its own, binary form.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env as Record<string, string>;
    const said = await run('qemu-aarch64-static', ['-L', await libraries(), node, ...args], {
      cwd: tree,
      // The emulated processor is that much slower at least.
      env: { ...env, STASIS_TEST_SLOWNESS: '10' },
      timeoutMs: 1_500_000,
    });
    const count = (key: string): number => Number(new RegExp(`^# ${key} (\\d+)$`, 'm').exec(said)?.[1] ?? -1);
    t.diagnostic(`${count('pass')} passed`);
    assert.equal(count('fail'), 0);
    assert.ok(count('pass') > 900, said.slice(-2000));
  });

  test('carries a CRIU that starts', async (t) => {
    const folder = scratch(t, 'arm64');
    await run('dpkg-deb', ['-x', deb('stasis-criu', 'arm64'), folder]);
    const criu = join(folder, 'usr/lib/stasis-criu/bin/criu');
    assert.match(await run('qemu-aarch64-static', ['-L', folder, criu, '--version']), /^Version: 4\.[2-9]/m);
  });
});
