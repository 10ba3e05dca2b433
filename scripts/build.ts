// Bundles each program: one file a program, beside the launcher and the pinned Node's path.
//
//   scripts/node scripts/build.ts                   into dist/, to be run from there
//   scripts/node scripts/build.ts --package DIR     below DIR, to be run from /usr (scripts/package)
import { build, type BuildOptions } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readyCommands } from '../src/cli/ready/commands.ts';

const root = join(import.meta.dirname, '..');
const { values } = parseArgs({ options: { package: { type: 'string' } } });
/** Where each thing is written, and where it will be when it runs. */
const place =
  values.package === undefined
    ? {
        lib: join(root, 'dist/lib'),
        bin: join(root, 'dist'),
        sbin: join(root, 'dist'),
        installed: join(root, 'dist/lib'),
        node: join(root, `node_modules/node-linux-${process.arch}/bin/node`),
        cache: join(root, 'dist/lib/compile-cache'),
      }
    : {
        lib: join(values.package, 'usr/lib/stasis'),
        bin: join(values.package, 'usr/bin'),
        sbin: join(values.package, 'usr/sbin'),
        installed: '/usr/lib/stasis',
        node: '/usr/lib/stasis/node',
        cache: '/var/cache/stasis/compile-cache',
      };
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

execFileSync(join(root, 'scripts/generate'), { stdio: 'inherit' });
for (const folder of [place.lib, place.bin, place.sbin]) mkdirSync(folder, { recursive: true });
if (values.package === undefined) {
  // Used only where nobody else can write: src/cli/code-cache.ts. A package's is made when it is installed.
  rmSync(place.cache, { recursive: true, force: true });
  mkdirSync(place.cache);
  chmodSync(place.cache, 0o755);
}

const define = { STASIS_VERSION: JSON.stringify(manifest.version), STASIS_COMMIT: JSON.stringify(commit()) };
// npm makes programs of its package's bundles. In Debian's package they are what Node is called with, and cannot be executed.
const shebang = values.package === undefined ? '#!/usr/bin/env node\n' : '';
const common: BuildOptions = {
  bundle: true,
  platform: 'node',
  target: 'node24',
  legalComments: 'none',
  external: ['koffi'],
  // Paths of modules stand in what is written: the same ones wherever the tree and its node_modules lie.
  absWorkingDir: root,
  preserveSymlinks: true,
  define,
  logLevel: 'warning',
};

// The daemons live long and are ES modules; the command line is started for every command, and CommonJS in one
// file starts some 20 ms sooner.
await build({
  ...common,
  entryPoints: {
    stasisd: join(root, 'src/daemon/main.ts'),
    'diff-worker': join(root, 'snapshotter/diff/worker.ts'),
    'mount-from-worker': join(root, 'src/sys/mount-from-worker.ts'),
    shim: join(root, 'shim/main.ts'),
    guard: join(root, 'shim/guard/main.ts'),
  },
  outdir: place.lib,
  format: 'esm',
  outExtension: { '.js': '.mjs' },
  banner: {
    js: `${shebang}import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);`,
  },
});
const commandLine: BuildOptions = {
  ...common,
  outdir: place.lib,
  format: 'cjs',
  charset: 'ascii', // see src/cli/code-cache.ts
  supported: { 'dynamic-import': false }, // becomes require()
  // Half as much to read at each start. Names stay: they are in stack traces.
  minifyWhitespace: true,
  minifySyntax: true,
  outExtension: { '.js': '.cjs' },
  plugins: [
    {
      // commander loads it for subcommands that are programs of their own, which we have none of: 4 ms of each start.
      name: 'no-child-process',
      setup: (build) => {
        build.onResolve({ filter: /^node:child_process$/ }, ({ importer }) =>
          importer.includes('/commander/') ? { path: 'child_process', namespace: 'lazy' } : undefined,
        );
        build.onLoad({ filter: /^child_process$/, namespace: 'lazy' }, () => ({
          contents:
            "module.exports = { get spawn() { return process.getBuiltinModule('node:child_process').spawn; } };",
        }));
      },
    },
    {
      // Setup speaks to containerd with all of gRPC: a file of its own, so that no other command has to read that.
      name: 'setup',
      setup: (build) =>
        build.onResolve({ filter: /\/commands\/setup\.ts$/ }, () => ({
          path: './setup.cjs',
          external: true,
        })),
    },
  ],
};
await build({ ...commandLine, entryPoints: { 'stasis-main': join(root, 'src/cli/main.ts') } });
await build({
  ...commandLine,
  entryPoints: { ready: join(root, 'src/cli/ready/main.ts') },
  define: { ...define, STASIS_BUILD: '"@BUILD@"' },
});
// Of which build a script and a process are that meet: src/cli/ready/.
const script = readFileSync(join(root, 'src/cli/ready/stasis.sh'), 'utf8');
const ready = readFileSync(join(place.lib, 'ready.cjs'), 'utf8');
const commandLineBuild = createHash('sha256').update(script).update(ready).digest('hex').slice(0, 12);
writeFileSync(join(place.lib, 'ready.cjs'), ready.replace('@BUILD@', commandLineBuild));

await build({
  ...common,
  entryPoints: { stasis: join(root, 'src/cli/loader.ts') },
  outdir: place.lib,
  format: 'cjs',
  banner: { js: shebang },
  outExtension: { '.js': '.cjs' },
  define: { ...define, STASIS_CODE_CACHE: JSON.stringify(values.package === undefined ? '' : place.cache) },
});
await build({
  ...common,
  entryPoints: { setup: join(root, 'src/cli/commands/setup.ts') },
  outdir: place.lib,
  format: 'cjs',
  outExtension: { '.js': '.cjs' },
});

install(place.lib, 'criu-when-ready', readFileSync(join(root, 'shim/process/criu-when-ready'), 'utf8'));
const { node, installed } = place;
// No options for V8: Node's own modules are compiled beforehand, and V8 takes that code only with the same options.
// Without a hash seed of its own V8 need not hash what is in its snapshot again, nor find primes: a twelfth of the time that Node
// takes to start. The command reads nobody's data but stasisd's, once.
const seedless = '--hash-seed=1 --no-rehash-snapshot';
install(
  place.bin,
  'stasis',
  script
    .replaceAll('@NODE@', node)
    .replaceAll('@OPTIONS@', seedless)
    .replaceAll('@STASIS@', `${installed}/stasis.cjs`)
    .replaceAll('@BUILD@', commandLineBuild)
    .replaceAll('@COMMANDS@', readyCommands.join(' | ')),
);
install(place.sbin, 'stasisd', `#!/bin/sh\nexec '${node}' '${installed}/stasisd.mjs' "$@"\n`);

install(
  place.bin,
  'containerd-shim-stasis-v2',
  readFileSync(join(root, 'shim/launcher.sh'), 'utf8')
    .replaceAll('@NODE@', node)
    .replaceAll('@SHIM@', `${installed}/shim.mjs`)
    .replaceAll('@VERSION@', manifest.version),
);

/** Replaces a program in one step, so that a running host never executes half a file. */
function install(folder: string, name: string, text: string): void {
  const path = join(folder, name);
  writeFileSync(`${path}.new`, text);
  chmodSync(`${path}.new`, 0o755);
  renameSync(`${path}.new`, path);
}

function commit(): string {
  try {
    return execFileSync('git', ['-C', root, 'rev-parse', '--short=12', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown';
  }
}
