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
    const rows = page.split('\n').filter((line) => line.startsWith('| `'));
    const cells = (row: string): string[] => row.split(' |').map((cell) => cell.replace(/^\| /, '').trim());
    assert.ok(rows.length > 60, 'each has its row');
    assert.deepEqual(
      rows.filter(
        (row) =>
          cells(row).length !== 5 ||
          cells(row)
            .slice(0, 4)
            .some((cell) => cell.length < 2),
      ),
      [],
      'name, kind, cause and remedy',
    );
  });

  test('links to nothing that is not there, page or heading', () => {
    const broken: string[] = [];
    for (const page of pages()) {
      const text = withoutBlocks(readFileSync(join(root, page), 'utf8'));
      for (const [, target = '', anchor] of text.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)/g)) {
        const path = target === '' ? page : join(dirname(page), target);
        if (!existsSync(join(root, path))) broken.push(`${page} links to ${target}`);
        else if (anchor !== undefined && !headings(path).includes(anchor))
          broken.push(`${page} links to ${path}#${anchor}`);
      }
    }
    assert.deepEqual(broken, []);
  });

  test('has no command in the tour and the guides that the system tests do not run', () => {
    const run = readFileSync(join(root, 'test/system/main/docs.test.ts'), 'utf8');
    const unrun: string[] = [];
    for (const page of ['docs/tour.md', ...guides()]) {
      const text = readFileSync(join(root, page), 'utf8');
      for (const [, language = '', block = ''] of text.matchAll(/^```(\w*)\n(.*?)^```$/gms)) {
        const first = block.split('\n')[0] ?? '';
        const isRun = language === 'console' && run.includes(`'${page}'`);
        if (!isRun && !Object.hasOwn(notRun, first)) unrun.push(`${page}: ${first}`);
        assert.ok(!(isRun && !/^\$ /.test(first)), `${page}: a session begins with a command: ${first}`);
      }
    }
    assert.deepEqual(unrun, []);
  });
});

/** Blocks that are not run, by their first line, and why. */
const notRun: Readonly<Record<string, string>> = {
  'apiVersion: node.k8s.io/v1': 'a file for Kubernetes',
  '# /etc/systemd/system/containerd.service.d/stasis.conf': 'a file for systemd',
  'nerdctl run -d --runtime io.containerd.stasis.v2 --snapshotter stasis --name web nginx':
    'in no release of Debian: the page says so, and test/system/shim/nerdctl.ts makes its calls',
  'zfs create -o encryption=on -o keyformat=passphrase tank/secret':
    'zfs-fuse has no encryption, and it asks for a passphrase',
};

function guides(): string[] {
  return readdirSync(join(root, 'docs/guides')).map((name) => `docs/guides/${name}`);
}

function pages(): string[] {
  return [
    'README.md',
    'CHANGELOG.md',
    'test/README.md',
    'ttrpc/README.md',
    ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).map((name) => `docs/${name}`),
  ].filter((name) => name.endsWith('.md'));
}

function withoutBlocks(text: string): string {
  return text.replace(/^ *```.*?^ *```$/gms, '');
}

/** The anchors of a page's headings, as code forges make them. */
function headings(page: string): string[] {
  const text = withoutBlocks(readFileSync(join(root, page), 'utf8'));
  const seen = new Map<string, number>();
  return [...text.matchAll(/^#+ +(.*)$/gm)].map(([, title = '']) => {
    const slug = title
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
}
