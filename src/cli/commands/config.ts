import {
  configPath,
  type LocatedProblem,
  locatedProblems,
  parseDocument,
  readConfig,
} from '../../config/config.ts';
import { type Setting, settings } from '../../config/origins.ts';
import { sections } from '../../config/schema.ts';
import { InvalidArgument } from '../../errors.ts';
import type { WithData } from '../fault.ts';
import type { Host } from '../host.ts';
import { table } from '../table.ts';

interface Options {
  json?: boolean;
  quiet?: boolean;
  origin?: boolean;
}

/** `stasis config show [--origin]`: the configuration in force, as a file that could be used, or with its origins. */
export function configShow(host: Host, { json = false, quiet = false, origin = false }: Options): void {
  const path = configPath(host.env);
  const all = settings(path, host.env['STASIS_CONFIG'] !== undefined);
  if (json) {
    const view = {
      file: path,
      settings: all.map((one) => ({ key: one.path, value: one.value, origin: one.origin })),
    };
    host.stdout.write(`${JSON.stringify(view, null, 2)}\n`);
  } else if (quiet) {
    host.stdout.write(all.map((one) => `${one.path}\n`).join(''));
  } else if (origin) {
    const rows = all.map((one) => [one.path, JSON.stringify(one.value), one.origin]);
    host.stdout.write(table(['KEY', 'VALUE', 'FROM'], rows));
  } else {
    host.stdout.write(asFile(all));
  }
}

function asFile(all: readonly Setting[]): string {
  return [...sections.keys()]
    .map((section) => {
      const lines = all
        .filter(({ path }) => path.startsWith(`${section}.`))
        .map(({ path, value }) => `${path.slice(section.length + 1)} = ${JSON.stringify(value)}\n`);
      return `[${section}]\n${lines.join('')}`;
    })
    .join('\n');
}

/** What a configuration has wrong, for stdout's JSON beside the error. */
class ConfigMistakes extends InvalidArgument implements WithData {
  readonly data: Readonly<Record<string, unknown>>;

  constructor(file: string, count: string, problems: readonly LocatedProblem[]) {
    super(`${file} has ${count}`, {
      subject: file,
      reason: 'bad-config',
      remedy: `correct ${problems.length === 1 ? 'it' : 'them'}; the manual has every key: man stasis.toml`,
    });
    this.data = { file, exists: true, ok: false, problems };
  }
}

/**
 * `stasis config check [FILE]`: every mistake with its line.
 * @throws InvalidArgument after they were printed
 */
export function configCheck(
  host: Host,
  file: string | undefined,
  { json = false, quiet = false }: Options,
): void {
  const path = file ?? configPath(host.env);
  const byEnvironment = file === undefined && host.env['STASIS_CONFIG'] !== undefined;
  const text = readConfig(path, file !== undefined || byEnvironment, byEnvironment);
  const problems = text === undefined ? [] : locatedProblems(parseDocument(text, path), text, path);
  if (problems.length > 0) {
    if (!json)
      for (const { at, message, remedy } of problems) host.stdout.write(`${at}: ${message}; ${remedy}\n`);
    const count = problems.length === 1 ? 'a mistake' : `${problems.length} mistakes`;
    throw new ConfigMistakes(path, count, problems);
  }
  if (json)
    host.stdout.write(`${JSON.stringify({ file: path, exists: text !== undefined, ok: true }, null, 2)}\n`);
  else if (!quiet)
    host.stdout.write(`${path}: ${text === undefined ? 'not there; the defaults apply' : 'ok'}\n`);
}
