import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { hasErrno, InvalidArgument, messageOf } from '../errors.ts';
import { levels, type Level } from '../log.ts';

/** Everything that can be set, with a default for each key. Durations in seconds unless the name says otherwise. */
export interface Config {
  zfs: {
    /** Dataset that holds everything; empty: `<pool>/stasis` of the only pool. */
    root: string;
    zfs_path: string;
    zpool_path: string;
    /** Seconds that a removed container's root file system stays in the trash. */
    trash_grace: number;
  };
  daemon: {
    /** Run-time state and sockets; nothing durable. */
    run_dir: string;
  };
  containerd: {
    address: string;
  };
  runtime: {
    /** OCI runtime: a name on PATH, or a path. */
    oci: string;
    /** CRIU: a name on PATH, or a path. */
    criu: string;
  };
  shim: {
    sharing: 'namespace' | 'pod' | 'container';
    /** Seconds that a shim stays after its last container. */
    idle_timeout: number;
  };
  checkpoint: {
    /** Seconds after which a dump is given up. */
    timeout: number;
    /** Where memory is dumped while frozen; empty: `<run_dir>/staging`. Should be a tmpfs. */
    staging_dir: string;
    /** MiB of memory images of the latest checkpoints that stay there, to be restored faster. 0: none. */
    cache: number;
  };
  log: {
    level: Level;
  };
}

export const defaults: Config = {
  zfs: { root: '', zfs_path: 'zfs', zpool_path: 'zpool', trash_grace: 3600 },
  daemon: { run_dir: '/run/stasis' },
  containerd: { address: '/run/containerd/containerd.sock' },
  runtime: { oci: 'runc', criu: 'criu' },
  shim: { sharing: 'namespace', idle_timeout: 30 },
  checkpoint: { timeout: 300, staging_dir: '', cache: 256 },
  log: { level: 'info' },
};

const choices: Record<string, readonly string[]> = {
  'shim.sharing': ['namespace', 'pod', 'container'],
  'log.level': levels,
};

/** Where the configuration is read from: STASIS_CONFIG, else the system's file. */
export function configPath(env: NodeJS.ProcessEnv = process.env): string {
  return env['STASIS_CONFIG'] ?? '/etc/stasis/config.toml';
}

/**
 * Reads the configuration; a file that does not exist means the defaults, unless STASIS_CONFIG names it.
 * @throws InvalidArgument naming the file and the key for anything that is not understood
 */
export function loadConfig(path = configPath(), mustExist = process.env['STASIS_CONFIG'] === path): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT') && !mustExist) return structuredClone(defaults);
    throw new InvalidArgument(`cannot read the configuration ${path}: ${messageOf(error)}`, {
      subject: path,
      remedy: 'create the file, or unset STASIS_CONFIG to use the defaults',
    });
  }
  return parseConfig(text, path);
}

/** Parses configuration text; `path` is for messages. */
export function parseConfig(text: string, path: string): Config {
  let document: Record<string, unknown>;
  try {
    document = parse(text);
  } catch (error) {
    const where = error instanceof TomlError ? `${path}:${error.line}:${error.column}` : path;
    throw new InvalidArgument(`${where}: not valid TOML: ${messageOf(error).split('\n')[0]}`, {
      subject: path,
    });
  }
  const config = structuredClone(defaults);
  const sections = config as unknown as Record<string, Record<string, unknown>>;
  for (const [section, values] of Object.entries(document)) {
    const target = Object.hasOwn(sections, section) ? sections[section] : undefined;
    if (target === undefined) throw unknown(text, path, section, Object.keys(sections));
    if (typeof values !== 'object' || values === null || Array.isArray(values)) {
      throw new InvalidArgument(`${at(text, path, section)}: ${section} must be a table: [${section}]`, {
        subject: section,
      });
    }
    for (const [key, value] of Object.entries(values)) {
      const name = `${section}.${key}`;
      if (!Object.hasOwn(target, key)) throw unknown(text, path, name, Object.keys(target));
      if (typeof value !== typeof target[key]) {
        throw new InvalidArgument(
          `${at(text, path, key)}: ${name} must be a ${typeof target[key]}, not ${JSON.stringify(value)}`,
          { subject: name },
        );
      }
      const allowed = choices[name];
      if (allowed !== undefined && !allowed.includes(String(value))) {
        throw new InvalidArgument(`${at(text, path, key)}: ${name} must be one of ${allowed.join(', ')}`, {
          subject: name,
        });
      }
      if (typeof value === 'number' && !(value >= 0)) {
        throw new InvalidArgument(`${at(text, path, key)}: ${name} must not be negative`, { subject: name });
      }
      target[key] = value;
    }
  }
  return config;
}

/** stasisd's socket: the API, and the snapshotter and diff services for containerd. */
export function socketPath(config: Config): string {
  return `${config.daemon.run_dir}/stasisd.sock`;
}

/** stasisd's second socket, over ttrpc, for this host's shims. */
export function shimSocketPath(config: Config): string {
  return `${config.daemon.run_dir}/stasisd.ttrpc`;
}

function unknown(text: string, path: string, name: string, known: string[]): InvalidArgument {
  const leaf = name.split('.').at(-1) ?? name;
  return new InvalidArgument(
    `${at(text, path, leaf)}: unknown key ${name}; known here: ${known.join(', ')}`,
    {
      subject: name,
      remedy: `remove or correct ${name} in ${path}`,
    },
  );
}

/** `file:line` of the first line that sets or opens the key. */
function at(text: string, path: string, key: string): string {
  const index = text
    .split('\n')
    .findIndex((line) => new RegExp(`^\\s*\\[?\\s*${key.replace(/[^\w-]/g, '.')}\\s*[\\].=]`).test(line));
  return index < 0 ? path : `${path}:${index + 1}`;
}
