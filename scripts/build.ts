// Bundles each program into dist/: one file a program, beside the launcher and the pinned Node's path.
import { build, type BuildOptions } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

execFileSync(join(root, 'scripts/generate'), { stdio: 'inherit' });
mkdirSync(dist, { recursive: true });

const define = { STASIS_VERSION: JSON.stringify(manifest.version), STASIS_COMMIT: JSON.stringify(commit()) };
const common: BuildOptions = {
  bundle: true,
  platform: 'node',
  target: 'node24',
  legalComments: 'none',
  external: ['koffi'],
  define,
  logLevel: 'warning',
};

// The daemons live long and are ES modules; the command line is started for every command, and CommonJS in one
// file starts some 20 ms sooner.
await build({
  ...common,
  entryPoints: {
    'lib/stasisd': join(root, 'src/daemon/main.ts'),
    'lib/diff-worker': join(root, 'snapshotter/diff/worker.ts'),
    'lib/shim': join(root, 'shim/main.ts'),
  },
  outdir: dist,
  format: 'esm',
  outExtension: { '.js': '.mjs' },
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
});
await build({
  ...common,
  entryPoints: { 'lib/stasis': join(root, 'src/cli/main.ts') },
  outdir: dist,
  format: 'cjs',
  outExtension: { '.js': '.cjs' },
});
chmodSync(join(dist, 'lib'), 0o755); // V8's compile cache is kept there only where nobody else can write

const node = join(root, `node_modules/node-linux-${process.arch}/bin/node`);
// Node looks into this cache before it loads the program; src/cli/compile-cache.ts says when it may be used.
const cache = `NODE_COMPILE_CACHE='${join(dist, 'lib/compile-cache')}'`;
install('stasis', `#!/bin/sh\n${cache} exec '${node}' '${join(dist, 'lib/stasis.cjs')}' "$@"\n`);
install('stasisd', `#!/bin/sh\nexec '${node}' '${join(dist, 'lib/stasisd.mjs')}' "$@"\n`);

install(
  'containerd-shim-stasis-v2',
  readFileSync(join(root, 'shim/launcher.sh'), 'utf8')
    .replaceAll('@NODE@', node)
    .replaceAll('@SHIM@', join(dist, 'lib/shim.mjs'))
    .replaceAll('@VERSION@', manifest.version),
);

/** Replaces a program in one step, so that a running host never executes half a file. */
function install(name: string, text: string): void {
  const path = join(dist, name);
  writeFileSync(`${path}.new`, text);
  chmodSync(`${path}.new`, 0o755);
  renameSync(`${path}.new`, path);
}

function commit(): string {
  try {
    return execFileSync('git', ['-C', root, 'rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown';
  }
}
