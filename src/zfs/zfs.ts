import { ANSWER_TIMEOUT_MS, type CommandOptions, type CommandResult, type Exec } from '../sys/command.ts';
import { Internal, NotFound } from '../errors.ts';
import { commandError, ZfsUnavailable } from './errors.ts';
import { FuseDaemon } from './fuse-daemon.ts';
import { RowReader } from './rows.ts';
import { type ChangedObjects, SendStreamReader } from './send-stream.ts';
import { checkDataset, checkName, checkProperty, checkSnapshot } from './names.ts';

export type ZfsKind = 'openzfs' | 'zfs-fuse';
export type Properties = Readonly<Record<string, string>>;
export type PropertySource = 'local' | 'received' | 'inherited' | 'default' | 'temporary' | 'none';

/** A property as ZFS reports it. User properties are inherited by children and by snapshots: the source tells. */
export interface Property {
  readonly value: string;
  readonly source: PropertySource;
}

export interface Row {
  readonly name: string;
  readonly type: 'filesystem' | 'snapshot';
  readonly properties: ReadonlyMap<string, Property>;
}

export interface ListOptions {
  root: string;
  /** Levels below `root`; all where left out. */
  depth?: number;
  types: readonly ('filesystem' | 'snapshot')[];
  properties: readonly string[];
  /** Leave out what is inherited or default: what a dataset has of its own, and read-only native properties. */
  ownOnly?: boolean;
  /** Leave out also what a dataset does not have, and datasets that have none of it: only what was set on it. */
  setOnly?: boolean;
}

/** Deadline and cancellation of one call. A cancelled command may or may not have had its effect. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
  timeoutMs?: number;
}

export interface PoolStatus {
  readonly name: string;
  readonly health: string;
  readonly sizeBytes: number;
  readonly freeBytes: number;
}

/**
 * The one door to the `zfs` and `zpool` commands. Each call is one process, but for the exceptions
 * that say so, and throws the typed errors of errors.ts.
 */
export interface Zfs {
  readonly kind: ZfsKind;
  /** Such as `2.3.9`, or `pool version 23` for zfs-fuse. */
  readonly version: string;
  /** Makes a file system. @throws AlreadyExists ParentMissing ResourceExhausted */
  create(name: string, options?: { properties?: Properties }, call?: CallOptions): Promise<void>;
  /** @throws NotFound for the snapshot, AlreadyExists, ParentMissing, ResourceExhausted */
  clone(
    snapshot: string,
    target: string,
    options?: { properties?: Properties },
    call?: CallOptions,
  ): Promise<void>;
  /**
   * Makes snapshots with the same properties. OpenZFS makes all of them in one transaction. zfs-fuse takes
   * one a command: they are made one by one there, and on an error those made are destroyed again. With zfs-fuse's own programs
   * its daemon is asked for each, and no process runs.
   */
  snapshot(
    names: readonly string[],
    options?: { properties?: Properties },
    call?: CallOptions,
  ): Promise<void>;
  /**
   * Destroys a file system or a snapshot. `recursive`: with its children and snapshots. `defer` (snapshots):
   * where clones or holds exist, it goes when the last of them does.
   * @throws NotFound HasClones HasChildren Busy
   */
  destroy(
    name: string,
    options?: { recursive?: boolean; defer?: boolean },
    call?: CallOptions,
  ): Promise<void>;
  /** As destroy; what does not exist counts as destroyed. */
  destroyIdempotent(
    name: string,
    options?: { recursive?: boolean; defer?: boolean },
    call?: CallOptions,
  ): Promise<void>;
  /**
   * Makes a clone independent: it takes the snapshots of what it was cloned from over, up to the one that it stands on, and
   * that file system stands on this one from then on. Mounts stay as they are. Refused where both have a snapshot of one name.
   * @throws NotFound ResourceExhausted
   */
  promote(clone: string, call?: CallOptions): Promise<void>;
  /** @throws NotFound AlreadyExists ParentMissing Busy */
  rename(from: string, to: string, call?: CallOptions): Promise<void>;
  /**
   * Sets properties: in one transaction on OpenZFS; zfs-fuse takes one property a command, so there they are
   * set in the order given and whoever needs atomicity makes the last one decide.
   */
  set(name: string, properties: Properties, call?: CallOptions): Promise<void>;
  /** Makes the dataset inherit a property again (for a user property: removes it). */
  inherit(name: string, property: string, call?: CallOptions): Promise<void>;
  /** Every dataset at and below `root`, each with the properties asked for that it has. @throws NotFound */
  list(options: ListOptions, call?: CallOptions): Promise<Row[]>;
  /**
   * What may differ between two snapshots, the first of which is an earlier one of the same file system or the one
   * that it is a clone of: the records of `zfs send -i`, at a cost that follows what changed.
   */
  changes(from: string, to: string, call?: CallOptions): Promise<ChangedObjects>;
  /**
   * Mounts a file system on a folder that exists, whatever its mountpoint property says. No process. zfs-fuse only: see
   * mounter.ts. @throws Busy if mounted, NotFound
   */
  mount(name: string, path: string, call?: CallOptions): Promise<void>;
  /** @throws NotFound */
  poolStatus(pool: string, call?: CallOptions): Promise<PoolStatus>;
  /** The names of all imported pools. */
  pools(call?: CallOptions): Promise<string[]>;
}

export interface ZfsPrograms {
  zfs: string;
  zpool: string;
}

export interface ZfsWays {
  /** Whether zfs-fuse's daemon is asked for snapshots, clones and streams without a process; true where left out. */
  readonly direct?: boolean;
}

/**
 * Finds out which ZFS answers and opens the door to it. `zfs version` exists on OpenZFS since 0.8; zfs-fuse
 * does not know it.
 * @throws ZfsUnavailable where the programs are missing or nothing answers them
 */
export async function openZfs(
  exec: Exec,
  programs: ZfsPrograms = { zfs: 'zfs', zpool: 'zpool' },
  { direct = true }: ZfsWays = {},
): Promise<Zfs> {
  const run = runner(exec);
  const version = await run(programs.zfs, ['version'], { timeoutMs: ANSWER_TIMEOUT_MS });
  if (version.spawnError !== undefined || version.timedOut)
    throw commandError('reach ZFS', programs.zfs, version);
  if (version.exitCode === 0) {
    const number = /^zfs-kmod-(\S+)/m.exec(version.stdout)?.[1] ?? /^zfs-(\S+)/m.exec(version.stdout)?.[1];
    return new ZfsCommand(run, programs, { kind: 'openzfs', version: number ?? 'unknown', direct: false });
  }
  const pools = await run(programs.zpool, ['upgrade', '-v'], { timeoutMs: ANSWER_TIMEOUT_MS });
  const old = /running ZFS (?:pool )?version (\d+)/.exec(pools.stdout)?.[1];
  if (old === undefined) {
    const error = commandError('reach ZFS', programs.zfs, pools);
    throw error instanceof ZfsUnavailable
      ? error
      : new ZfsUnavailable(error.message, {
          subject: programs.zfs,
          remedy: 'load the zfs module, or start zfs-fuse',
        });
  }
  return new ZfsCommand(run, programs, { kind: 'zfs-fuse', version: `pool version ${old}`, direct });
}

type Run = (
  file: string,
  args: readonly string[],
  call: CallOptions & Pick<CommandOptions, 'onStdout'>,
) => Promise<CommandResult>;

/** Messages are parsed, so they must not be translated. */
function runner(exec: Exec): Run {
  const env = { ...(process.env as Record<string, string>), LC_ALL: 'C' };
  return (file, args, call) =>
    exec(file, args, {
      env,
      ...(call.signal === undefined ? {} : { signal: call.signal }),
      ...(call.timeoutMs === undefined ? {} : { timeoutMs: call.timeoutMs }),
      ...(call.onStdout === undefined ? {} : { onStdout: call.onStdout }),
    });
}

class ZfsCommand implements Zfs {
  readonly kind: ZfsKind;
  readonly version: string;
  readonly #run: Run;
  readonly #programs: ZfsPrograms;
  readonly #daemon: FuseDaemon;
  readonly #direct: boolean;
  /** The end of the queue of mounts: see `#oneAtATime`. */
  #mounting: Promise<unknown> = Promise.resolve();

  constructor(
    run: Run,
    programs: ZfsPrograms,
    { kind, version, direct }: { kind: ZfsKind; version: string; direct: boolean },
  ) {
    this.#direct = direct;
    this.#run = run;
    this.#programs = programs;
    this.#daemon = new FuseDaemon(programs.zfs);
    this.kind = kind;
    this.version = version;
  }

  async create(name: string, options: { properties?: Properties } = {}, call?: CallOptions): Promise<void> {
    checkDataset(name);
    await this.#zfs(
      `create dataset ${name}`,
      name,
      ['create', ...assignments(options.properties), name],
      call,
    );
  }

  async clone(
    snapshot: string,
    target: string,
    options: { properties?: Properties } = {},
    call?: CallOptions,
  ): Promise<void> {
    checkSnapshot(snapshot);
    checkDataset(target);
    const args = ['clone', ...assignments(options.properties), snapshot, target];
    // Where it may be mounted, the command mounts it.
    if (
      this.#direct &&
      options.properties?.['canmount'] === 'off' &&
      (await this.#daemon.clone(snapshot, target, options.properties, call))
    )
      return;
    await this.#zfs(`clone ${snapshot} to ${target}`, target, args, call);
  }

  async snapshot(
    names: readonly string[],
    options: { properties?: Properties } = {},
    call?: CallOptions,
  ): Promise<void> {
    for (const name of names) checkSnapshot(name);
    pairsOf(options.properties ?? {}); // each is checked
    const make = async (some: readonly string[]): Promise<void> => {
      const [first = ''] = some;
      if (this.#direct && (await this.#daemon.snapshot(first, options.properties ?? {}, call))) return;
      const args = ['snapshot', ...assignments(options.properties), ...some];
      await this.#zfs(`snapshot ${some.join(' ')}`, first, args, call);
    };
    if (this.kind === 'openzfs' || names.length < 2) {
      if (names.length > 0) await make(names);
      return;
    }
    const made: string[] = [];
    try {
      for (const name of names) {
        await make([name]);
        made.push(name);
      }
    } catch (error) {
      for (const name of made.reverse()) await this.destroyIdempotent(name);
      throw error;
    }
  }

  async destroy(
    name: string,
    options: { recursive?: boolean; defer?: boolean } = {},
    call?: CallOptions,
  ): Promise<void> {
    checkName(name);
    const flags = [...(options.recursive === true ? ['-r'] : []), ...(options.defer === true ? ['-d'] : [])];
    await this.#zfs(`destroy ${name}`, name, ['destroy', ...flags, name], call);
  }

  async destroyIdempotent(
    name: string,
    options: { recursive?: boolean; defer?: boolean } = {},
    call?: CallOptions,
  ): Promise<void> {
    try {
      await this.destroy(name, options, call);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
    }
  }

  async promote(clone: string, call?: CallOptions): Promise<void> {
    checkDataset(clone);
    await this.#zfs(`promote dataset ${clone}`, clone, ['promote', clone], call);
  }

  async rename(from: string, to: string, call?: CallOptions): Promise<void> {
    checkName(from);
    checkName(to);
    await this.#zfs(`rename ${from} to ${to}`, from, ['rename', from, to], call);
  }

  async set(name: string, properties: Properties, call?: CallOptions): Promise<void> {
    checkName(name);
    const pairs = pairsOf(properties);
    const batches = this.kind === 'openzfs' ? [pairs] : pairs.map((pair) => [pair]);
    for (const batch of batches) {
      if (batch.length > 0) await this.#zfs(`set properties of ${name}`, name, ['set', ...batch, name], call);
    }
  }

  async inherit(name: string, property: string, call?: CallOptions): Promise<void> {
    checkName(name);
    checkProperty(property, '-');
    await this.#zfs(`reset ${property} of ${name}`, name, ['inherit', property, name], call);
  }

  async list(options: ListOptions, call?: CallOptions): Promise<Row[]> {
    checkName(options.root);
    for (const property of options.properties) checkProperty(property, '-');
    const args = ['get', '-Hp', '-o', 'name,property,value,source'];
    if (options.depth === undefined) args.push('-r');
    else args.push('-d', String(options.depth));
    // zfs-fuse's `zfs get` has no -t: it always reports snapshots too.
    if (this.kind === 'openzfs') args.push('-t', options.types.join(','));
    if (options.setOnly === true) args.push('-s', 'local,received');
    else if (options.ownOnly === true) args.push('-s', 'local,received,none');
    // `type` comes for every dataset, so that one with no property of its own is listed too.
    args.push(['type', ...options.properties].join(','), options.root);
    const reader = new RowReader(new Set(options.types));
    await this.#zfs(`list ${options.root}`, options.root, args, call, (chunk) => reader.push(chunk));
    return reader.end();
  }

  async changes(from: string, to: string, call: CallOptions = {}): Promise<ChangedObjects> {
    checkSnapshot(from);
    checkSnapshot(to);
    const what = `compare ${to} with ${from}`;
    if (this.#direct) {
      const direct = new StreamOf(to, what);
      if (await this.#daemon.send(from, to, (chunk) => direct.push(chunk), call)) return direct.end();
    }
    const stream = new StreamOf(to, what);
    const onStdout = (chunk: Buffer): void => stream.push(chunk);
    const result = await this.#run(this.#programs.zfs, ['send', '-i', from, to], { ...call, onStdout });
    if (result.exitCode !== 0) throw commandError(what, to, result);
    return stream.end();
  }

  async mount(name: string, path: string, call?: CallOptions): Promise<void> {
    checkDataset(name);
    await this.#oneAtATime(() => this.#daemon.mount(name, path, call));
  }

  async poolStatus(pool: string, call: CallOptions = {}): Promise<PoolStatus> {
    checkDataset(pool);
    // zfs-fuse's `zpool list` has no -p: sizes come from `zpool get`-like rounding, so ask zfs for the bytes.
    const health = await this.#run(this.#programs.zpool, ['list', '-H', '-o', 'health', pool], call);
    if (health.exitCode !== 0) throw commandError(`look at pool ${pool}`, pool, health);
    const rows = await this.list(
      { root: pool, depth: 0, types: ['filesystem'], properties: ['used', 'available'] },
      call,
    );
    const bytes = (property: string): number => Number(rows[0]?.properties.get(property)?.value ?? 0);
    return {
      name: pool,
      health: health.stdout.trim(),
      sizeBytes: bytes('used') + bytes('available'),
      freeBytes: bytes('available'),
    };
  }

  async pools(call: CallOptions = {}): Promise<string[]> {
    const result = await this.#run(this.#programs.zpool, ['list', '-H', '-o', 'name'], call);
    if (result.exitCode !== 0) throw commandError('list pools', 'pools', result);
    return result.stdout.split('\n').filter((name) => name !== '' && name !== 'no pools available');
  }

  /**
   * zfs-fuse hands a new mount to its listener in two writes to one pipe, without a lock: two mounts at once can
   * interleave there, and then every file system of the daemon hangs for good. So mounts queue.
   */
  async #oneAtATime<T>(command: () => Promise<T>): Promise<T> {
    const turn = this.#mounting.then(command, command);
    this.#mounting = turn.catch(() => undefined);
    return turn;
  }

  async #zfs(
    what: string,
    subject: string,
    args: readonly string[],
    call: CallOptions = {},
    onStdout?: (chunk: Buffer) => void,
  ): Promise<void> {
    const result = await this.#run(this.#programs.zfs, args, {
      ...call,
      ...(onStdout === undefined ? {} : { onStdout }),
    });
    if (result.exitCode !== 0 || result.cancelled) throw commandError(what, subject, result);
  }
}

/** A stream that is read to its end even where it makes no sense, so that who sends it need not wait. */
class StreamOf {
  readonly #reader = new SendStreamReader();
  readonly #to: string;
  readonly #what: string;
  #unreadable: unknown;

  constructor(to: string, what: string) {
    this.#to = to;
    this.#what = what;
  }

  push(chunk: Buffer): void {
    try {
      if (this.#unreadable === undefined) this.#reader.push(chunk);
    } catch (error) {
      this.#unreadable = error;
    }
  }

  /** @throws Internal where it made none */
  end(): ChangedObjects {
    if (this.#unreadable instanceof Error)
      throw new Internal(`cannot ${this.#what}: ${this.#unreadable.message}`, { subject: this.#to });
    return this.#reader.end();
  }
}

function pairsOf(properties: Properties): string[] {
  return Object.entries(properties).map(([name, value]) => {
    checkProperty(name, value);
    return `${name}=${value}`;
  });
}

function assignments(properties: Properties = {}): string[] {
  return pairsOf(properties).flatMap((pair) => ['-o', pair]);
}
