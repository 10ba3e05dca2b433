// Packs the npm package into a folder and checks what is in it: the bundles and the papers, nothing else; and that its
// command line starts.
//
//   scripts/node scripts/npm-package.ts DIR NODE_MODULES     NODE_MODULES: what is in the bundles, for their notices
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dependencies, notices } from './licenses.ts';

const root = join(import.meta.dirname, '..');
const [out, modules] = process.argv.slice(2);
if (out === undefined || modules === undefined) throw new Error('usage: npm-package.ts DIR NODE_MODULES');

interface Packed {
  filename: string;
  size: number;
  files: { path: string }[];
}

const expected = [
  'CHANGELOG.md',
  'LICENSE',
  'README.md',
  'dist/lib/criu-when-ready',
  'dist/lib/diff-worker.mjs',
  'dist/lib/guard.mjs',
  'dist/lib/mount-from-worker.mjs',
  'dist/lib/setup.cjs',
  'dist/lib/shim.mjs',
  'dist/lib/stasis-main.cjs',
  'dist/lib/stasis.cjs',
  'dist/lib/stasisd.mjs',
  'dist/lib/third-party-licenses.txt',
  'package.json',
];
// Node is not in it, nor what npm installs beside it; whoever has the bundles has the notices of their parts.
const bundled = dependencies(modules).filter(({ name }) => !name.startsWith('node-linux-'));
writeFileSync(join(root, 'dist/lib/third-party-licenses.txt'), notices(bundled));
const answer = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', out], {
  cwd: root,
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'inherit'],
});
const [packed] = JSON.parse(answer) as Packed[];
if (packed === undefined) throw new Error('npm packed nothing');
const files = packed.files.map(({ path }) => path).sort();
if (JSON.stringify(files) !== JSON.stringify(expected)) {
  throw new Error(`the npm package holds ${files.join(', ')}; expected: ${expected.join(', ')}`);
}
const unpacked = mkdtempSync(join(tmpdir(), 'stasis-npm-'));
try {
  execFileSync('tar', ['-xzf', join(out, packed.filename), '-C', unpacked]);
  const said = execFileSync(process.execPath, [join(unpacked, 'package/dist/lib/stasis.cjs'), 'version'], {
    encoding: 'utf8',
  });
  if (!said.startsWith('stasis ')) throw new Error(`its command line says ${said}`);
} finally {
  rmSync(unpacked, { recursive: true });
}
console.log(`${packed.filename}: ${files.length} files, ${(packed.size / 1e6).toFixed(1)} MB`);
