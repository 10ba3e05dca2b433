// Collects the licences of everything that the packages hold: those npm packages whose code is in a bundle or beside it, and
// Node's own with all it contains. Fails on a package without one, or with one that nobody has looked at.
//
//   scripts/node scripts/licenses.ts NODE_MODULES          the notices, as one text
//   scripts/node scripts/licenses.ts NODE_MODULES --list   name, version and licence of each, one a line
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Dependency {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly notice: string;
}

/** Licences that allow what we do: distribution in binary form, with their notice. */
const ACCEPTED = new Set(['MIT', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD']);
const FILES = /^(licen[cs]e|copying|notice)(-mit|-apache)?(\.(md|txt))?$/i;

/** Every package below a production node_modules, by name. */
export function dependencies(modules: string): Dependency[] {
  return packageFolders(modules)
    .map((folder) => dependency(folder))
    .filter(({ name }) => !name.startsWith('@types/') && name !== 'undici-types') // types alone: nothing of them is shipped
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function packageFolders(modules: string): string[] {
  return readdirSync(modules)
    .filter((name) => !name.startsWith('.'))
    .flatMap((name) =>
      name.startsWith('@')
        ? readdirSync(join(modules, name)).map((inner) => join(modules, name, inner))
        : [join(modules, name)],
    )
    .flatMap((folder) => {
      const nested = join(folder, 'node_modules');
      return [folder, ...(existsSync(nested) ? packageFolders(nested) : [])];
    });
}

function dependency(folder: string): Dependency {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
    name: string;
    version: string;
    license?: string;
  };
  const { name, version } = manifest;
  // npm's packages of Node carry Node's own licence file, which names that of each part.
  const license = name.startsWith('node-linux-') ? 'MIT' : (manifest.license ?? '');
  const parts = license.replace(/[()]/g, '').split(/ AND | OR /);
  if (!parts.every((part) => ACCEPTED.has(part)))
    throw new Error(
      `${name} ${version} has the licence ${license || 'none'}: look at it, then list it in scripts/licenses.ts`,
    );
  const texts = readdirSync(folder)
    .filter((file) => FILES.test(file))
    .sort()
    .map((file) => readFileSync(join(folder, file), 'utf8').trim());
  return { name, version, license, notice: texts.join('\n\n') };
}

function main(): void {
  const [modules, option] = process.argv.slice(2);
  if (modules === undefined) throw new Error('usage: licenses.ts NODE_MODULES [--list]');
  const all = dependencies(modules);
  if (option === '--list') {
    for (const { name, version, license } of all) console.log(`${name} ${version} ${license}`);
    return;
  }
  console.log(notices(all));
}

/** The notices of packages as one text, Node's own first. */
export function notices(all: readonly Dependency[]): string {
  const rule = '='.repeat(78);
  const ordered = [true, false].flatMap((ours) =>
    all.filter(({ name }) => name.startsWith('node-linux-') === ours),
  );
  return ordered
    .map(
      ({ name, version, license, notice }) =>
        `${rule}\n${name} ${version} (${license})\n${rule}\n\n${notice || `Licence: ${license}; the package has no file with its text.`}\n`,
    )
    .join('\n');
}

if (process.argv[1] === import.meta.filename) main();
