import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const folder = join(import.meta.dirname, '../../../ttrpc');

function block(markdown: string, language: string): string {
  const found = new RegExp('^```' + language + '\n(.*?)^```', 'ms').exec(markdown)?.[1];
  assert.ok(found, `no ${language} block`);
  return found;
}

test('the example of the README runs and prints what the README says', async (t) => {
  const readme = await readFile(join(folder, 'README.md'), 'utf8');
  const scratch = await mkdtemp(join(tmpdir(), 'ttrpc-readme-'));
  t.after(() => rm(scratch, { recursive: true }));
  const example = join(scratch, 'example.ts');
  const root = join(folder, '..');
  const code = block(readme, 'ts')
    .replaceAll("'../src/", `'${root}/src/`)
    .replaceAll("'./", `'${root}/ttrpc/`);
  await writeFile(example, code);
  const { stdout } = await promisify(execFile)(process.execPath, [example], {
    env: { ...process.env, SOCKET: join(scratch, 's') },
  });
  assert.equal(stdout, block(readme, 'text'));
});

test('every file of the library is named in the README', async () => {
  const readme = await readFile(join(folder, 'README.md'), 'utf8');
  const { readdir } = await import('node:fs/promises');
  for (const file of await readdir(folder)) {
    if (file.endsWith('.ts') && file !== 'index.ts' && file !== 'logger.ts') {
      assert.ok(readme.includes(`(${file})`), file);
    }
  }
});
