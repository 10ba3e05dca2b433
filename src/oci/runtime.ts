import { unlinkSync } from 'node:fs';
import { access, readFile, rm, writeFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { withQuickMoves } from '../sys/cgroup-lock.ts';
import type { CommandOptions, CommandResult, Exec } from '../sys/command.ts';
import { findProgram } from '../sys/find-program.ts';
import {
  checkpointArguments,
  createArguments,
  execArguments,
  globalArguments,
  restoreArguments,
  type GlobalOptions,
} from './arguments.ts';
import { explainGone } from './bundle-gone.ts';
import { assertOwnCgroup, type FindUnmounted } from './crun-cgroup.ts';
import { maskedFoldersConfig } from './crun-masks.ts';
import { type DirectDump, directDump, directPreDump } from './direct-dump.ts';
import { type DirectDelete, directDeleteOf } from './direct-delete.ts';
import { directStart } from './direct-start.ts';
import { markNetworkAsOwn } from '../criu/own-network.ts';
import { errorOf, OciError } from './error.ts';
import { noRoomIn } from './no-room.ts';
import { hasOwnClocks, rootAsSeenBy, withClocksOf } from './time-namespace.ts';
import type {
  CallLimits,
  CheckpointOptions,
  CreateOptions,
  DeleteOptions,
  ExecOptions,
  OciRuntime,
  PreDumpOptions,
  RestoreOptions,
  RuntimeBinary,
  RuntimeName,
  RuntimeState,
  StartOptions,
} from './types.ts';

export interface RuntimeOptions extends GlobalOptions {
  readonly exec: Exec;
  readonly binary: RuntimeBinary;
  /** The container's bundle: working directory of every call, and place of its short-lived log files. */
  readonly bundle: string;
  /** Environment of the runtime, this process's own by default. */
  readonly env?: NodeJS.ProcessEnv;
  /** Folder that holds a program named `criu`, put first on the runtime's PATH: both runtimes find CRIU there alone. */
  readonly criuDir?: string;
  /** Called before whatever needs CRIU; throws where the one that is to be used is not there, as PATH may hold another. */
  readonly requireCriu?: () => Promise<unknown>;
  /** See crun-cgroup.ts; this host's hierarchies by default. */
  readonly findUnmounted?: FindUnmounted;
  /** Whether `root` may be on a disk, for which this process's thread must not wait. */
  readonly isRootSlow?: boolean;
  /**
   * Soft limit of open files for what `create` and `exec` start, where the spec sets none. Node raises its own at its
   * start, and a container would inherit that: programs that close every possible descriptor take seconds then.
   */
  readonly openFiles?: number;
}

/** Calls that put processes into the container's cgroup. */
const movesProcesses: ReadonlySet<string> = new Set(['create', 'exec', 'restore']);

/** Seconds that CRIU may take, when the caller sets no deadline. */
const CRIU_TIMEOUT_MS = 300_000;

/** The door to runc or crun for one container. Cheap to make; holds nothing open. */
export function openRuntime(options: RuntimeOptions): OciRuntime {
  return new Door(options);
}

let calls = 0;

class Door implements OciRuntime {
  readonly name: RuntimeName;
  readonly path: string;
  readonly asksCriuFirst: boolean;
  readonly #options: RuntimeOptions;
  readonly #env: Record<string, string>;
  readonly #deleteDirectly: DirectDelete | undefined;

  constructor(options: RuntimeOptions) {
    this.name = options.binary.name;
    this.path = options.binary.path;
    // libcontainer's Restore begins so in these; of later ones it is not known.
    this.asksCriuFirst = this.name === 'runc' && /^1\.[1-4]\./.test(options.binary.version);
    this.#deleteDirectly = directDeleteOf(options.binary);
    this.#options = options;
    this.#env = environment(options.env ?? process.env, options.criuDir);
  }

  async create(options: CreateOptions): Promise<void> {
    await this.#run('create', options.id, createArguments(options), options, {
      stdioFds: options.stdioFds,
      container: true,
    });
  }

  async start(id: string, { first, ...limits }: StartOptions = {}): Promise<void> {
    const { root, binary, isRootSlow = false } = this.#options;
    if (root !== undefined && !isRootSlow && first !== undefined && binary.wrapped !== true) {
      if (await directStart(this.name, join(root, id), first)) return;
    }
    await this.#run('start', id, ['start', id], limits);
  }

  async kill(
    id: string,
    signal: number | string,
    options: CallLimits & { all?: boolean } = {},
  ): Promise<void> {
    const all = options.all === true ? ['--all'] : [];
    await this.#run('kill', id, ['kill', ...all, id, String(signal)], options);
  }

  async delete(id: string, options: DeleteOptions = {}): Promise<void> {
    const { root, systemdCgroup = false, isRootSlow = false } = this.#options;
    const { ended } = options;
    if (ended !== undefined && root !== undefined && !systemdCgroup && !isRootSlow) {
      if (this.#deleteDirectly?.(join(root, id), ended) === true) return;
    }
    const force = options.force === true ? ['--force'] : [];
    await this.#run('delete', id, ['delete', ...force, id], options);
  }

  async exec(options: ExecOptions): Promise<void> {
    const { id, init, stdioFds } = options;
    const { bundle, exec, root } = this.#options;
    const streams = { stdioFds, container: true };
    if (init === undefined || root === undefined || !(await hasOwnClocks(init))) {
      await this.#run('exec', id, execArguments(options), options, streams);
      return;
    }
    const folder = await rootAsSeenBy(init, this.name, { exec, root, id, folder: join(bundle, 'clocks') });
    await this.#run('exec', id, execArguments(options), options, {
      ...streams,
      before: withClocksOf(init),
      root: folder,
    });
  }

  async state(id: string, limits: CallLimits = {}): Promise<RuntimeState> {
    const { stdout } = await this.#run('state', id, ['state', id], limits);
    const state = parse('state', id, stdout) as Partial<RuntimeState>;
    if (typeof state.status !== 'string') throw malformed('state', id, stdout);
    return { id, pid: state.pid ?? 0, status: state.status, bundle: state.bundle ?? '' };
  }

  async ps(id: string, limits: CallLimits = {}): Promise<number[]> {
    const { stdout } = await this.#run('ps', id, ['ps', '--format', 'json', id], limits);
    const pids = parse('ps', id, stdout);
    if (pids === null) return []; // runc prints a nil slice so
    if (!Array.isArray(pids)) throw malformed('ps', id, stdout);
    return pids.map(Number);
  }

  async pause(id: string, limits: CallLimits = {}): Promise<void> {
    await this.#run('pause', id, ['pause', id], limits);
  }

  async resume(id: string, limits: CallLimits = {}): Promise<void> {
    await this.#run('resume', id, ['resume', id], limits);
  }

  async checkpoint(options: CheckpointOptions): Promise<void> {
    await this.#options.requireCriu?.();
    if (await this.#dumpDirectly(options)) return;
    const args = checkpointArguments(this.name, options);
    const running = this.#run(
      'checkpoint',
      options.id,
      args,
      { timeoutMs: CRIU_TIMEOUT_MS, ...options },
      {
        // A CRIU that outlives a killed runtime would hold captured streams open, and with them this call.
        stdioFds: ['ignore', 'ignore', 'ignore'],
        ...(options.statusFd === undefined ? {} : { extraFds: [options.statusFd] }),
        ...this.#criuEnvironment(options.criuConfig),
      },
    );
    options.onStart?.();
    await running;
  }

  /** Whether CRIU could be, and was, called without the runtime. Its failure is told as the runtime's would be. */
  async #dumpDirectly(options: CheckpointOptions): Promise<boolean> {
    const { root, criuDir } = this.#options;
    if (this.name !== 'runc' || root === undefined || criuDir === undefined) return false;
    const enters = findProgram('nsenter', this.#env['PATH'] ?? '') !== undefined;
    const direct = await directDump(root, enters ? options : { ...options, networkIdle: false });
    if (direct === undefined) return false;
    await this.#callCriu('checkpoint', criuDir, direct, options, options.onStart);
    if (direct.networkOf !== undefined) await markNetworkAsOwn(options.imageDir);
    return true;
  }

  async preDump(options: PreDumpOptions): Promise<void> {
    await this.#options.requireCriu?.();
    const { root, criuDir } = this.#options;
    const usual = this.name === 'runc' && root !== undefined && criuDir !== undefined;
    const direct = usual ? await directPreDump(root, options) : undefined;
    if (direct === undefined || criuDir === undefined) {
      throw new OciError('unsupported', 'pre-dump', {
        subject: options.id,
        said: `memory can be copied beforehand of usual containers of runc's alone`,
        remedy: 'leave out --precopy',
      });
    }
    await this.#callCriu('pre-dump', criuDir, direct, options);
  }

  async #callCriu(
    verb: string,
    criuDir: string,
    { args, networkOf }: DirectDump,
    options: CallLimits & { id: string; criuConfig?: string },
    onStart?: () => void,
  ): Promise<void> {
    const { exec, bundle } = this.#options;
    const criu = join(criuDir, 'criu');
    const [program, ...first] =
      networkOf === undefined
        ? ([criu] as const)
        : (['nsenter', `--net=/proc/${networkOf}/ns/net`, '--', criu] as const);
    const running = exec(program, [...first, ...args], {
      timeoutMs: options.timeoutMs ?? CRIU_TIMEOUT_MS,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      cwd: bundle,
      stdioFds: ['ignore', 'ignore', 'ignore'],
      env: { ...this.#env, ...this.#criuEnvironment(options.criuConfig).env },
    });
    onStart?.();
    const result = await running;
    if (result.exitCode !== 0) throw errorOf(verb, options.id, criu, result, '');
  }

  async restore(options: RestoreOptions): Promise<void> {
    await this.#options.requireCriu?.();
    const args = restoreArguments(this.name, options);
    const { root } = this.#options;
    if (this.name === 'crun') assertOwnCgroup(options.id, this.#options.findUnmounted);
    const criuConfig =
      this.name === 'crun' && root !== undefined
        ? await maskedFoldersConfig(root, options)
        : options.criuConfig;
    await this.#run(
      'restore',
      options.id,
      args,
      { timeoutMs: CRIU_TIMEOUT_MS, ...options },
      { stdioFds: options.stdioFds, ...this.#criuEnvironment(criuConfig, options.diskGate) },
    );
  }

  async update(id: string, resources: string, limits: CallLimits = {}): Promise<void> {
    // A file, as a pipe of Node is a socket, which cannot be opened again as /dev/stdin.
    const { bundle } = this.#options;
    const file = join(bundle, `resources.${process.pid}.${++calls}.json`);
    try {
      await writeFile(file, resources, { mode: 0o600, flag: 'wx' });
    } catch (error) {
      throw explainGone(error, id, bundle);
    }
    try {
      await this.#run('update', id, ['update', '--resources', file, id], limits);
    } finally {
      await rm(file, { force: true });
    }
  }

  criu(): string | undefined {
    const path = findProgram('criu', this.#env['PATH'] ?? '');
    return path !== undefined && isAbsolute(path) ? path : undefined; // a link elsewhere is to lead to it
  }

  async features(limits: CallLimits = {}): Promise<string> {
    const { stdout } = await this.#run('features', this.path, ['features'], limits);
    parse('features', this.path, stdout);
    return stdout;
  }

  /** CRIU is the runtime's child and inherits it. */
  #criuEnvironment(config: string | undefined, gate?: string): Pick<CommandOptions, 'env'> {
    const env = {
      ...(config === undefined ? {} : { CRIU_CONFIG_FILE: config }),
      ...(gate === undefined ? {} : { STASIS_DISK_GATE: gate, PATH: `${gate}:${this.#env['PATH'] ?? ''}` }),
    };
    return { env: { ...this.#env, ...env } };
  }

  /**
   * One call, with a log file of its own: calls for one container overlap, and an error must never be read from a
   * neighbour's. Where the bundle is gone (a late `delete`) it runs elsewhere and its errors come from stderr.
   */
  async #run(
    verb: string,
    subject: string,
    args: readonly string[],
    limits: CallLimits,
    {
      container = false,
      before = [],
      root = this.#options.root,
      ...streams
    }: Pick<CommandOptions, 'stdioFds' | 'extraFds' | 'env'> & {
      container?: boolean;
      /** A command that runs the runtime. */
      before?: readonly string[];
      root?: string | undefined;
    } = {},
  ): Promise<CommandResult> {
    const log = join(this.#options.bundle, `oci-log.${process.pid}.${++calls}.json`);
    const common: CommandOptions = {
      env: this.#env,
      ...streams,
      ...(limits.timeoutMs === undefined ? {} : { timeoutMs: limits.timeoutMs }),
      ...(limits.signal === undefined ? {} : { signal: limits.signal }),
    };
    const [file = this.path, ...first] = [...before, this.path];
    const { openFiles } = this.#options;
    const global = { ...this.#options, ...(root === undefined ? {} : { root }) };
    const call = (): Promise<CommandResult> =>
      this.#options.exec(file, [...first, ...globalArguments(global, log), ...args], {
        ...common,
        cwd: this.#options.bundle,
        ...(container && openFiles !== undefined ? { openFiles } : {}),
        copiesItself: this.name === 'crun' && file === this.path,
      });
    let result = await (movesProcesses.has(verb) ? withQuickMoves(call) : call());
    const withoutLog = (cwd: string): Promise<CommandResult> =>
      this.#options.exec(this.path, [...globalArguments(this.#options, undefined), ...args], {
        ...common,
        cwd,
      });
    if (result.spawnError === 'ENOENT' && !(await exists(this.#options.bundle)))
      result = await withoutLog('/');
    if (result.exitCode !== 0) {
      const text = await readFile(log, 'utf8').catch(() => '');
      await rm(log, { force: true });
      const otherwise = text === '' ? await noRoomIn(this.#options.bundle) : undefined;
      // What takes away must not need room.
      if (verb === 'delete' && otherwise !== undefined) result = await withoutLog('/');
      if (result.exitCode === 0) return result;
      throw errorOf(verb, subject, this.path, result, text, otherwise);
    }
    removeNow(log);
    return result;
  }
}

/**
 * NOTIFY_SOCKET is dropped: runc would pass our own to the container; and XDG_RUNTIME_DIR, by which crun names masked folders
 * in an image (see crun-masks.ts), so that the names do not depend on where the dump was made.
 */
function environment(base: NodeJS.ProcessEnv, criuDir: string | undefined): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, text] of Object.entries(base)) {
    if (text !== undefined && name !== 'NOTIFY_SOCKET' && name !== 'XDG_RUNTIME_DIR') env[name] = text;
  }
  const path = env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  env['PATH'] = criuDir === undefined ? path : `${criuDir}:${path}`;
  return env;
}

function parse(verb: string, subject: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw malformed(verb, subject, text);
  }
}

function malformed(verb: string, subject: string, text: string): OciError {
  return new OciError('unknown', verb, {
    subject,
    said: `its answer is not understood: ${text.slice(0, 200)}`,
  });
}

/** On this thread: it is an empty file in a folder of containerd's, which is in memory, and a client waits. */
function removeNow(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Not every runtime makes a file when it has nothing to say.
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
