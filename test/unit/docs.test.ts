import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { suite, test } from 'node:test';

const root = join(import.meta.dirname, '../..');

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.includes('gen/'))
    .map((name) => readFileSync(join(root, folder, name), 'utf8'));
}

suite('the documentation', () => {
  test('has every error by its name', () => {
    const page = readFileSync(join(root, 'docs/errors.md'), 'utf8');
    const reasons = new Set(
      ['src', 'shim', 'snapshotter']
        .flatMap(sources)
        .flatMap((text) => [...text.matchAll(/reason: '([a-z-]+)'(?! \|)/g)].map((match) => match[1])),
    );
    assert.ok(reasons.size > 20);
    assert.deepEqual(
      [...reasons].filter((reason) => !page.includes(`\`${reason}\``)),
      [],
    );
  });

  test('links to nothing that is not there', () => {
    const pages = [
      'README.md',
      'test/README.md',
      'ttrpc/README.md',
      ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).map((name) => `docs/${name}`),
    ];
    for (const page of pages.filter((name) => name.endsWith('.md'))) {
      const text = readFileSync(join(root, page), 'utf8');
      for (const [, target = ''] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
        assert.ok(existsSync(join(root, dirname(page), target)), `${page} links to ${target}`);
      }
    }
  });
});
