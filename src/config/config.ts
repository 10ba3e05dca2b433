import { existsSync, readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { hasErrno, InvalidArgument, messageOf } from '../errors.ts';
import { findLines, linePath } from './lines.ts';
import { findProblems, valueOf } from './problems.ts';
import { type Config, defaults, eachKey } from './schema.ts';

export { type Config, defaults } from './schema.ts';

/** Where the configuration is read from: STASIS_CONFIG, else the system's file. */
export function configPath(env: NodeJS.ProcessEnv = process.env): string {
  return env['STASIS_CONFIG'] ?? '/etc/stasis/config.toml';
}

/**
 * Reads the configuration; a file that does not exist means the defaults, unless STASIS_CONFIG names it.
 * @throws InvalidArgument naming the file, the line and the key for anything that is not understood
 */
export function loadConfig(path = configPath(), mustExist = process.env['STASIS_CONFIG'] === path): Config {
  const text = readConfig(path, mustExist);
  return withPrograms(text === undefined ? structuredClone(defaults) : parseConfig(text, path));
}

/** Where the package stasis-criu has its CRIU: on nobody's PATH, so that it never stands in for the distribution's. */
const PACKAGED_CRIU = '/usr/lib/stasis-criu/bin/criu';

function withPrograms(config: Config): Config {
  const criu = config.runtime.criu || (existsSync(PACKAGED_CRIU) ? PACKAGED_CRIU : 'criu');
  return { ...config, runtime: { ...config.runtime, criu } };
}

/**
 * The text of a configuration file; undefined where there is none and none is needed.
 * @param byEnvironment whether it was STASIS_CONFIG that named it, for the remedy
 * @throws InvalidArgument naming the file
 */
export function readConfig(
  path: string,
  mustExist: boolean,
  byEnvironment: boolean = mustExist,
): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const missing = hasErrno(error, 'ENOENT');
    if (missing && !mustExist) return undefined;
    const folder = hasErrno(error, 'EISDIR');
    const remedy = missing ? 'create the file' : folder ? 'name a file' : 'see that it can be read';
    throw new InvalidArgument(
      `cannot read the configuration ${path}: ${folder ? 'it is a folder' : messageOf(error)}`,
      {
        subject: path,
        remedy: byEnvironment
          ? `${remedy}, or unset STASIS_CONFIG to use the defaults`
          : missing
            ? 'name a file that is there, or create it'
            : remedy,
      },
    );
  }
}

/**
 * Parses configuration text; `path` is for messages.
 * @throws InvalidArgument with the line of the first thing that is not understood, and how many more there are
 */
export function parseConfig(text: string, path: string): Config {
  const document = parseDocument(text, path);
  const [first, ...more] = locatedProblems(document, text, path);
  if (first !== undefined) {
    const others = more.length === 0 ? '' : ` (and ${more.length} more: stasis config check shows them)`;
    throw new InvalidArgument(`${first.at}: ${first.message}${others}`, {
      subject: first.key,
      remedy: first.remedy,
    });
  }
  const config = structuredClone(defaults) as unknown as Record<string, Record<string, unknown>>;
  for (const { section, name } of eachKey()) {
    const value = valueOf(document, section, name);
    const target = config[section];
    if (value !== undefined && target !== undefined) target[name] = value;
  }
  return config as unknown as Config;
}

/**
 * The document behind configuration text, unchecked.
 * @throws InvalidArgument with line and column where it is no TOML
 */
export function parseDocument(text: string, path: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (error) {
    const where = error instanceof TomlError ? `${path}:${error.line}:${error.column}` : path;
    throw new InvalidArgument(`${where}: not valid TOML: ${messageOf(error).split('\n')[0]}`, {
      subject: path,
      remedy: `correct ${path}; its form is that of toml.io`,
    });
  }
}

/** A problem with the place where it is. */
export interface LocatedProblem {
  /** `file:line`. */
  readonly at: string;
  readonly key: string;
  readonly message: string;
  readonly remedy: string;
}

/** All problems of a document, in the order of their lines. */
export function locatedProblems(
  document: Readonly<Record<string, unknown>>,
  text: string,
  path: string,
): LocatedProblem[] {
  const problems = findProblems(document);
  if (problems.length === 0) return []; // lines are looked for only where somebody wants to know
  const lines = findLines(text);
  return problems
    .map((problem) => ({ ...problem, line: lines.get(linePath(...problem.path)) }))
    .sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
    .map(({ path: key, line, message, remedy }) => ({
      at: line === undefined ? path : `${path}:${line}`,
      key: key.join('.'),
      message,
      remedy,
    }));
}

/** stasisd's socket: the API, and the snapshotter and diff services for containerd. */
export function socketPath(config: Config): string {
  return `${config.daemon.run_dir}/stasisd.sock`;
}

/** stasisd's second socket, over ttrpc, for this host's shims. */
export function shimSocketPath(config: Config): string {
  return `${config.daemon.run_dir}/stasisd.ttrpc`;
}
