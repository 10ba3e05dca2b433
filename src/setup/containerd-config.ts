/**
 * What containerd's configuration needs, as a file of its own and, where nothing imports that, one entry in the main
 * file. How containerd merges files decides what may stand in ours (tried with 1.6, 1.7 and 2.1; read in 2.3's source):
 *
 * - Tables of `proxy_plugins` are merged by name, in all versions.
 * - A plugin's table is replaced whole by 1.6 and 1.7; by 2.x it is merged, but lists in it are replaced. So ours holds
 *   whatever the administrator's files say in the same table or list, and a table that must not be masked is left alone.
 * - 2.x refuses a drop-in whose version is higher than the main file's. 1.x wants full plugin names once any file says
 *   version 2, so beside a file of version 1 ours must not say it either.
 * - 1.6 panics on a proxy plugin of type `diff`, and has no transfer service.
 */
import { parse, stringify, TomlError } from 'smol-toml';
import { isDeepStrictEqual } from 'node:util';
import { findLines, linePath } from '../config/lines.ts';
import { FailedPrecondition, messageOf } from '../errors.ts';

export const DROP_IN = '/etc/containerd/conf.d/stasis.toml';
/** What containerd imports by default from 2.2 on, where it has no main file. */
const FOLDER = '/etc/containerd/conf.d/*.toml';
const TRANSFER = 'io.containerd.transfer.v1.local';
const DIFF_SERVICE = 'io.containerd.service.v1.diff-service';

/** containerd's files as they are. */
export interface ContainerdFiles {
  /** The main file. */
  readonly path: string;
  /** Undefined where there is none. */
  readonly text: string | undefined;
  /** Files that it imports, other than ours, in containerd's order. */
  readonly imported: readonly { readonly path: string; readonly text: string }[];
  /** Files other than ours that it imports by name, and that are not there. */
  readonly missing: readonly string[];
}

export interface ContainerdChange {
  /** Content of the drop-in. */
  readonly dropIn: string;
  /** New content of the main file; undefined where it stays as it is. */
  readonly main: string | undefined;
  /** What could not be done, for the administrator to do. */
  readonly notes: readonly string[];
}

type Table = Readonly<Record<string, unknown>>;

/**
 * @param version containerd's own, such as 1.7.24
 * @param socket stasisd's
 * @param mapsIds whether our mounts can show files under other ids
 * @throws FailedPrecondition for files that are not TOML, or that contradict ours
 */
export function containerdChange(
  files: ContainerdFiles,
  version: string,
  socket: string,
  mapsIds: boolean,
): ContainerdChange {
  const main = read(files.path, files.text ?? '');
  const others = files.imported.map(({ path, text }) => ({ path, table: read(path, text) }));
  const generation = generationOf(version);
  const format = formatOf(main, files.text, generation);
  const [missing] = files.missing;
  if (missing !== undefined && generation !== '2')
    throw new FailedPrecondition(
      `${files.path} imports ${missing}, which is not there: containerd cannot start so`,
      {
        subject: missing,
        reason: 'containerd-config',
        remedy: `make ${missing}, or take it out of imports in ${files.path}`,
      },
    );
  const notes: string[] = [];
  for (const { path, table } of [{ path: files.path, table: main }, ...others]) refuseOurNames(path, table);

  const plugins: Record<string, unknown> = {};
  const all = [main, ...others.map(({ table }) => table)];
  if (generation !== '1.6' && !(format === 1 && generation === '1.7')) {
    const diff = pluginTable(all, DIFF_SERVICE);
    const differs = list(diff['default']).length > 0 ? list(diff['default']) : ['walking'];
    plugins[DIFF_SERVICE] = {
      ...diff,
      default: ['stasis-diff', ...differs.filter((one) => one !== 'stasis-diff')],
    };
    const transfer = pluginTable(all, TRANSFER);
    const unpack = list(transfer['unpack_config']).filter((one) => !isOurs(one));
    plugins[TRANSFER] = {
      ...(generation === '1.7' ? transfer : {}),
      unpack_config: [
        { platform: 'linux', snapshotter: 'stasis', differ: 'stasis-diff' },
        ...(unpack.length > 0
          ? unpack
          : [{ platform: 'linux', snapshotter: 'overlayfs', differ: 'walking' }]),
      ],
    };
  } else if (generation === '1.7') {
    notes.push(
      `${files.path} is of version 1: pulls through the transfer service cannot unpack for stasis; to have that: containerd config migrate`,
    );
  }
  addRuntime(plugins, all, generation, format, notes);

  // Before 2.0 nobody asks.
  const capabilities = mapsIds && generation === '2' ? { capabilities: ['remap-ids'] } : {};
  const proxies: Record<string, unknown> = {
    stasis: { type: 'snapshot', address: socket, ...capabilities },
  };
  if (generation !== '1.6') proxies['stasis-diff'] = { type: 'diff', address: socket };
  const document = {
    ...(format === 1 ? {} : { version: format }),
    proxy_plugins: proxies,
    ...(Object.keys(plugins).length > 0 ? { plugins } : {}),
  };
  const head =
    '# Written by `stasis setup`, and taken away by `stasis setup --undo`. What is not about stasis in here repeats what\n' +
    '# the other files say: containerd would take the lists in this file instead of theirs.\n';
  return {
    dropIn: `${head}${stringify(document)}\n`,
    main: imports(main, files) ? undefined : withImport(files, main, format),
    notes,
  };
}

type Generation = '1.6' | '1.7' | '2';

function generationOf(version: string): Generation {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number);
  if (major >= 2) return '2';
  if (major === 1 && minor >= 6) return minor === 6 ? '1.6' : '1.7';
  throw new FailedPrecondition(`containerd ${version} is too old`, {
    subject: 'containerd',
    reason: 'containerd-too-old',
    remedy: 'install containerd 1.6 or newer',
  });
}

/** The version that our file says: never higher than the main file's. */
function formatOf(main: Table, text: string | undefined, generation: Generation): 1 | 2 | 3 {
  const version = text === undefined ? 2 : typeof main['version'] === 'number' ? main['version'] : 1;
  if (version <= 1) return 1;
  return version >= 3 && generation === '2' ? 3 : 2;
}

/** The runtime for the CRI; ctr and nerdctl need no entry. */
function addRuntime(
  plugins: Record<string, unknown>,
  all: readonly Table[],
  generation: Generation,
  format: 1 | 2 | 3,
  notes: string[],
): void {
  if (
    list(all[0]?.['disabled_plugins']).some((one) =>
      /^(cri|io\.containerd\.grpc\.v1\.cri|io\.containerd\.cri\..*)$/.test(String(one)),
    )
  )
    return;
  if (generation !== '2') {
    notes.push(
      'for Kubernetes, add [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.stasis] with runtime_type = "io.containerd.stasis.v2" to your configuration, beside the entry for runc: from a file of ours this containerd would take it instead of all other runtimes',
    );
    return;
  }
  plugins[format === 3 ? 'io.containerd.cri.v1.runtime' : 'io.containerd.grpc.v1.cri'] = {
    containerd: { runtimes: { stasis: { runtime_type: 'io.containerd.stasis.v2', snapshotter: 'stasis' } } },
  };
}

/** Is our folder imported already? From 2.2 on the defaults do, where there is no main file. */
function imports(main: Table, files: ContainerdFiles): boolean {
  const covering = new Set([FOLDER, DROP_IN, 'conf.d/*.toml']);
  return files.text !== undefined && list(main['imports']).some((one) => covering.has(String(one)));
}

/**
 * The main file with one entry more in `imports`; nothing else of it changes, which is checked. Our file alone: others that lie
 * in its folder, and that nothing has imported so far, are not to count all at once.
 */
function withImport(files: ContainerdFiles, main: Table, format: number): string {
  const { path, text } = files;
  if (text === undefined) {
    return `# Written by \`stasis setup\`, since there was none: containerd's defaults, and the files of conf.d.\nversion = 2\nimports = ["${FOLDER}"]\n`;
  }
  const lines = text.split('\n');
  const at = findLines(text).get(linePath('imports'));
  if (at === undefined) {
    // Before the first table, and after what may stand above it.
    const version = format === 1 ? undefined : findLines(text).get(linePath('version'));
    lines.splice(version ?? 0, 0, `imports = ["${DROP_IN}"]`);
  } else {
    const line = lines[at - 1] ?? '';
    const rest = list(main['imports']).length > 0 ? ', ' : '';
    lines[at - 1] = line.replace('[', `["${DROP_IN}"${rest}`);
  }
  const changed = lines.join('\n');
  const wanted = { ...main, imports: [DROP_IN, ...list(main['imports'])] };
  if (!isDeepStrictEqual({ ...read(path, changed) }, wanted)) {
    throw new FailedPrecondition(`${path} is written in a way that \`imports\` cannot be added to safely`, {
      subject: path,
      reason: 'containerd-config',
      remedy: `add "${DROP_IN}" to imports in ${path} by hand, and run stasis setup again`,
    });
  }
  return changed;
}

/**
 * A main file that was edited since we wrote it, without our entry in `imports`; all else of it stays.
 * @returns undefined where the entry is not there, or cannot be taken out safely
 */
export function withoutImport(text: string): string | undefined {
  let main: Table;
  try {
    main = parse(text);
  } catch {
    return undefined;
  }
  const rest = list(main['imports']).filter((one) => one !== DROP_IN);
  if (rest.length === list(main['imports']).length) return undefined;
  const lines = text.split('\n');
  const at = findLines(text).get(linePath('imports')) ?? 0;
  const { imports: _, ...others } = main;
  const line = lines[at - 1] ?? '';
  const shorter = line.replace(new RegExp(`["']${DROP_IN}["']\\s*,?\\s*`), '');
  // The line was ours alone where nothing else is on it, or an empty list of before: then nobody misses the list.
  const candidates = [
    lines.with(at - 1, shorter),
    ...(rest.length === 0 && /^\s*imports\s*=\s*\[\s*\]\s*$/.test(shorter)
      ? [lines.toSpliced(at - 1, 1)]
      : []),
  ].toReversed();
  for (const candidate of candidates) {
    const changed = candidate.join('\n');
    try {
      const { imports = [], ...kept } = parse(changed);
      if (isDeepStrictEqual(kept, others) && isDeepStrictEqual(imports, rest)) return changed;
    } catch {
      // not that way
    }
  }
  return undefined;
}

/** Whether a main file names our drop-in itself, without which containerd up to 1.7 then does not start. */
export function namesDropIn(text: string): boolean {
  try {
    return list(parse(text)['imports']).includes(DROP_IN);
  } catch {
    return text.includes(DROP_IN);
  }
}

/** What a drop-in of ours tells containerd of, in words. */
export function contentOf(dropIn: string): string {
  const { proxy_plugins: proxies, plugins } = parse(dropIn);
  const names = [
    'snapshotter',
    ...(isTable(proxies) && 'stasis-diff' in proxies ? ['differ'] : []),
    ...(isTable(plugins) && JSON.stringify(plugins).includes('io.containerd.stasis.v2') ? ['runtime'] : []),
  ];
  return names.length === 1 ? 'snapshotter' : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

function refuseOurNames(path: string, table: Table): void {
  const proxies = isTable(table['proxy_plugins']) ? table['proxy_plugins'] : {};
  for (const name of ['stasis', 'stasis-diff']) {
    if (!Object.hasOwn(proxies, name)) continue;
    throw new FailedPrecondition(`${path} has a proxy plugin ${name} already`, {
      subject: path,
      reason: 'containerd-config',
      remedy: `take [proxy_plugins.${name}] out of ${path}, or go on without stasis setup`,
    });
  }
}

function read(path: string, text: string): Table {
  try {
    return parse(text);
  } catch (error) {
    const where = error instanceof TomlError ? `${path}:${error.line}:${error.column}` : path;
    throw new FailedPrecondition(`${where}: not valid TOML: ${messageOf(error).split('\n')[0]}`, {
      subject: path,
      reason: 'containerd-config',
      remedy: `correct ${path}; containerd cannot read it either`,
    });
  }
}

/** What the files say in a plugin's table; the later wins. */
function pluginTable(all: readonly Table[], name: string): Record<string, unknown> {
  return Object.assign(
    {},
    ...all.map((table) => {
      const plugin = isTable(table['plugins']) ? table['plugins'][name] : undefined;
      return isTable(plugin) ? plugin : {};
    }),
  ) as Record<string, unknown>;
}

function isOurs(entry: unknown): boolean {
  return isTable(entry) && entry['snapshotter'] === 'stasis';
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
