import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { parseConfig } from '../../../src/config/config.ts';
import { stasis } from './harness.ts';

async function configured(t: TestContext, text: string): Promise<{ env: NodeJS.ProcessEnv; file: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-config-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'config.toml');
  await writeFile(file, text);
  return { env: { STASIS_CONFIG: file }, file };
}

test('config show says of each value where it comes from', async (t) => {
  const { env, file } = await configured(t, '# ours\n[shim]\nsharing = "pod"\n');
  const { code, stdout } = await stasis(['config', 'show', '--origin'], { env });
  assert.equal(code, 0);
  assert.match(stdout, new RegExp(`^shim\\.sharing +"pod" +${file}:3$`, 'm'));
  assert.match(stdout, /^shim\.idle_timeout +30 +default$/m);
});

test('config show prints a file that means the same', async (t) => {
  const { env } = await configured(t, 'shim.sharing = "pod"\nzfs.root = "tank/a b"\n');
  const { stdout } = await stasis(['config', 'show'], { env });
  const config = parseConfig(stdout, 'shown');
  assert.equal(config.shim.sharing, 'pod');
  assert.equal(config.zfs.root, 'tank/a b');
  const again = await configured(t, stdout);
  assert.equal((await stasis(['config', 'show'], { env: again.env })).stdout, stdout);
});

test('config check shows every mistake with its line, and exits with 2', async (t) => {
  const { file } = await configured(t, '[shim]\nsharign = "pod"\n\n[log]\nlevel = 3\n');
  const { code, stdout, stderr } = await stasis(['config', 'check', file]);
  assert.equal(code, 2);
  assert.deepEqual(
    stdout.split('\n').map((line) => line.replace(/(:\d+:).*/, '$1')),
    [`${file}:2:`, `${file}:5:`, ''],
  );
  assert.match(stdout, /did you mean shim\.sharing\?/);
  assert.match(stderr, /has 2 mistakes/);
  const json = JSON.parse((await stasis(['config', 'check', file, '--json'])).stdout) as {
    ok: boolean;
    problems: { at: string; key: string; message: string; remedy: string }[];
    error: { message: string; remedy: string };
  };
  assert.equal(json.ok, false);
  assert.deepEqual(
    json.problems.map(({ at, key }) => [at, key]),
    [
      [`${file}:2`, 'shim.sharign'],
      [`${file}:5`, 'log.level'],
    ],
  );
  assert.match(json.problems[0]?.message ?? '', /^unknown key shim\.sharign/);
  assert.match(json.error.message, /has 2 mistakes$/);
  assert.match(json.error.remedy, /man stasis\.toml/, 'which the package installs');
});

test('config check of a good file, and of one that is not there', async (t) => {
  const { file } = await configured(t, '[zfs]\nroot = "tank/x"\n');
  assert.deepEqual(await stasis(['config', 'check', file]), { code: 0, stdout: `${file}: ok\n`, stderr: '' });
  const missing = await stasis(['config', 'check', `${file}.not`]);
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /cannot read the configuration .*ENOENT/);
  assert.doesNotMatch(missing.stderr, /STASIS_CONFIG/, 'which was not set');
  const folder = await stasis(['config', 'check', '/']);
  assert.equal(folder.code, 2);
  assert.match(folder.stderr, /configuration \/: it is a folder\n {2}next: name a file\n/);
  const env = { STASIS_CONFIG: `${file}.not` };
  assert.match((await stasis(['config', 'check'], { env })).stderr, /unset STASIS_CONFIG/);
});
