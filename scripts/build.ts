// Bundles each program into dist/: one file a program, beside the launcher and the pinned Node's path.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

execFileSync(join(root, 'scripts/generate'), { stdio: 'inherit' });
mkdirSync(dist, { recursive: true });

const programs = {
  stasis: 'src/cli/main.ts',
  stasisd: 'src/daemon/main.ts',
  shim: 'shim/main.ts',
};
const entries = Object.entries(programs).filter(([, file]) => existsSync(join(root, file)));

await build({
  entryPoints: Object.fromEntries(entries.map(([name, file]) => [`lib/${name}`, join(root, file)])),
  outdir: dist,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  outExtension: { '.js': '.mjs' },
  splitting: true,
  chunkNames: 'lib/chunk-[hash]',
  minify: false,
  legalComments: 'none',
  external: ['koffi'],
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  define: { STASIS_VERSION: JSON.stringify(manifest.version), STASIS_COMMIT: JSON.stringify(commit()) },
  logLevel: 'warning',
});

for (const name of ['stasis', 'stasisd'].filter((n) => entries.some(([entry]) => entry === n))) {
  install(
    name,
    `#!/bin/sh\nexec '${join(root, 'scripts/node')}' '${join(dist, 'lib', `${name}.mjs`)}' "$@"\n`,
  );
}

const launcher = join(root, 'shim/launcher.sh');
if (existsSync(launcher)) {
  const arch = process.arch;
  const text = readFileSync(launcher, 'utf8')
    .replaceAll('@NODE@', join(root, `node_modules/node-linux-${arch}/bin/node`))
    .replaceAll('@SHIM@', join(dist, 'lib/shim.mjs'))
    .replaceAll('@VERSION@', manifest.version);
  install('containerd-shim-stasis-v2', text);
}

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
