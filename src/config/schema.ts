/**
 * Every key of the configuration: type, default, meaning. The type `Config`, the defaults, the checks, the file that the
 * package installs and the reference page all come from this table.
 */
import { levels } from '../log.ts';

/** When a changed value counts. */
export type Effect =
  /** After `systemctl restart stasisd`; containers do not notice. */
  | 'restart'
  /** After `systemctl reload stasisd`. */
  | 'reload'
  /** For shims that start afterwards; a running one keeps what it was started with. */
  | 'shim'
  /** After a restart of stasisd, and for shims that start afterwards. */
  | 'both';

interface Common {
  /** What it is, in a sentence or two; for the reference page and the installed file. */
  readonly what: string;
  readonly effect: Effect;
}
export interface TextKey extends Common {
  readonly type: 'string';
  readonly default: string;
  /** What an empty string means, where that is not just an empty string. */
  readonly empty?: string;
  /** Only absolute paths (or empty, where `empty` is given). */
  readonly absolute?: boolean;
  /** Only what ZFS takes as a dataset's name (or empty). */
  readonly dataset?: boolean;
}
export interface NumberKey extends Common {
  readonly type: 'number';
  readonly default: number;
  readonly unit: string;
  readonly min: number;
  readonly max: number;
  /** Only whole numbers, unless this is set. */
  readonly fraction?: boolean;
}
export interface ChoiceKey<V extends string = string> extends Common {
  readonly type: 'choice';
  readonly default: V;
  readonly choices: readonly V[];
}
export type Key = TextKey | NumberKey | ChoiceKey;
export interface Section {
  /** What the section is about, one sentence. */
  readonly what: string;
  readonly keys: Readonly<Record<string, Key>>;
}

const text = (key: Omit<TextKey, 'type'>): TextKey => ({ type: 'string', ...key });
const number = (key: Omit<NumberKey, 'type'>): NumberKey => ({ type: 'number', ...key });
// Written out, since a type argument is not inferred through Omit.
const choice = <const V extends string>(
  key: Common & { readonly default: NoInfer<V>; readonly choices: readonly V[] },
): ChoiceKey<V> => ({ type: 'choice', ...key });

const DAYS = 24 * 3600;

export const schema = {
  zfs: {
    what: 'Where the data lies.',
    keys: {
      root: text({
        default: '',
        what: 'Dataset that holds everything.',
        dataset: true,
        empty: '`<pool>/stasis` of the only pool',
        effect: 'restart',
      }),
      zfs_path: text({
        default: 'zfs',
        what: 'The program `zfs`: a name on PATH, or a path.',
        effect: 'both',
      }),
      zpool_path: text({
        default: 'zpool',
        what: 'The program `zpool`: a name on PATH, or a path.',
        effect: 'both',
      }),
      trash_grace: number({
        default: 3600,
        unit: 'seconds',
        min: 0,
        max: 3650 * DAYS,
        what: "How long a removed container's root file system stays in the trash, space permitting.",
        effect: 'restart',
      }),
    },
  },
  daemon: {
    what: 'stasisd itself.',
    keys: {
      run_dir: text({
        default: '/run/stasis',
        absolute: true,
        what: 'Sockets and run-time state; nothing durable. Changing it needs that no container runs.',
        effect: 'both',
      }),
      ready_command: choice({
        default: 'on',
        choices: ['on', 'off'],
        what:
          "Whether a process is kept that has the command line loaded, so that root's `stasis` need not wait for Node to start: " +
          'docs/cli.md. It takes some 60 MB of memory, half of them shared with stasisd.',
        effect: 'restart',
      }),
    },
  },
  containerd: {
    what: 'The containerd that stasisd serves.',
    keys: {
      address: text({
        default: '/run/containerd/containerd.sock',
        absolute: true,
        what: 'Its socket.',
        effect: 'restart',
      }),
    },
  },
  runtime: {
    what: 'Programs that containers are made with.',
    keys: {
      oci: text({
        default: 'runc',
        what: 'OCI runtime: runc or crun, a name on PATH or a path.',
        effect: 'both',
      }),
      criu: text({
        default: '',
        empty: 'that of the package stasis-criu where it is installed, else `criu` on PATH',
        what: 'CRIU, a name on PATH or a path. Clones need 4.2 or newer.',
        effect: 'both',
      }),
    },
  },
  shim: {
    what: 'The processes that hold containers.',
    keys: {
      sharing: choice({
        default: 'namespace',
        choices: ['namespace', 'pod', 'container'],
        what: 'Who shares a shim: all containers of a containerd namespace, those of a pod, or nobody.',
        effect: 'shim',
      }),
      guard: choice({
        default: 'off',
        choices: ['on', 'off'],
        what:
          'Whether a small process holds the connections, ends and streams of containers, so that the one that does the work can be ' +
          'killed and started again while they run: docs/guard.md.',
        effect: 'shim',
      }),
      idle_timeout: number({
        default: 30,
        unit: 'seconds',
        min: 0,
        max: DAYS,
        fraction: true,
        what: 'How long a shim stays after its last container.',
        effect: 'shim',
      }),
    },
  },
  checkpoint: {
    what: 'How checkpoints are taken.',
    keys: {
      timeout: number({
        default: 300,
        unit: 'seconds',
        min: 1,
        max: DAYS,
        what: 'After this a dump or a restore is given up, and undone.',
        effect: 'reload',
      }),
      exec_sessions: choice({
        default: 'leave',
        choices: ['leave', 'refuse', 'wait', 'kill'],
        what:
          'What becomes of exec sessions, which a checkpoint does not hold: they go on, they forbid it, it waits for their end, ' +
          'or they are killed. Where stasis checkpoint is not told by `--exec-sessions`; stock clients leave them.',
        effect: 'reload',
      }),
      precopy_rounds: number({
        default: 4,
        unit: 'rounds',
        min: 1,
        max: 16,
        what:
          'How often `stasis checkpoint --precopy` copies memory at most while the container runs, before it stands still for the ' +
          'rest. Where it is not told by `--precopy-rounds`.',
        effect: 'reload',
      }),
      precopy_goal: number({
        default: 8,
        unit: 'MiB',
        min: 0,
        max: 1024 * 1024,
        fraction: true,
        what: 'A round that has copied no more than this is the last. Where `--precopy` is not told by `--precopy-goal`.',
        effect: 'reload',
      }),
      staging_dir: text({
        default: '',
        absolute: true,
        empty: '`staging` below `daemon.run_dir`, or a folder in `/dev/shm` where that is no tmpfs',
        what: 'Where memory is dumped while the container is frozen. Should be a tmpfs.',
        effect: 'restart',
      }),
      cache: number({
        default: 256,
        unit: 'MiB',
        min: 0,
        max: 1024 * 1024,
        what: 'Memory images of the latest checkpoints that stay there, to be restored faster. 0: none.',
        effect: 'restart',
      }),
      lazy_from: number({
        default: 64,
        unit: 'MiB',
        min: 0,
        max: 1024 * 1024,
        what: 'Memory images from this size on are brought in while the restored container runs, where the host can. 0: none.',
        effect: 'reload',
      }),
      links: number({
        default: 16,
        unit: 'images',
        min: 0,
        max: 100,
        what:
          'Former memory images that one in the pool may refer to for pages that have not changed; then it is written whole ' +
          'again. 0: always whole.',
        effect: 'restart',
      }),
    },
  },
  log: {
    what: 'What is logged.',
    keys: {
      level: choice({
        default: 'info',
        choices: levels,
        what: 'The least important messages that are logged.',
        effect: 'reload',
      }),
    },
  },
} as const satisfies Readonly<Record<string, Section>>;

type Schema = typeof schema;
type Value<K> = K extends ChoiceKey<infer V> ? V : K extends NumberKey ? number : string;
type Keys<S extends Section> = { -readonly [K in keyof S['keys']]: Value<S['keys'][K]> };

/** Everything that can be set, with a default for each key. */
export type Config = { -readonly [S in keyof Schema]: Keys<Schema[S]> };

/** The sections by name, for code that walks them. */
export const sections: ReadonlyMap<string, Section> = new Map(Object.entries<Section>(schema));

/** Every key as `section.key`. */
export function eachKey(): { section: string; name: string; path: string; key: Key }[] {
  return [...sections].flatMap(([section, { keys }]) =>
    Object.entries(keys).map(([name, key]) => ({ section, name, path: `${section}.${name}`, key })),
  );
}

/** The values of a configuration that sets nothing. */
export const defaults: Config = fromEntries();

function fromEntries(): Config {
  const values: Record<string, Record<string, unknown>> = {};
  for (const { section, name, key } of eachKey()) (values[section] ??= {})[name] = key.default;
  return values as unknown as Config;
}
