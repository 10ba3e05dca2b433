import { accessSync, constants, existsSync, fstatSync, readSync, statSync } from 'node:fs';
import { constants as os } from 'node:os';
import { exec, limited, type CommandOptions, type CommandResult, type Exec } from '../../src/sys/command.ts';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { SysError } from '../../src/sys/libc.ts';
import { hasRoomFor, withOpenFiles } from '../../src/sys/open-files.ts';
import { memoryFile, spawnProgram } from '../../src/sys/spawn.ts';
import { ProgramCopies } from './program-copies.ts';
import type { Exit, Reaper } from './reaper.ts';

const DEFAULT_TIMEOUT_MS = 120_000;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * `exec` of src/sys/command.ts for a process that has a reaper, without child_process, whose fork of a process as large
 * as the shim takes several times as long as the rest. Output goes to files in memory, so that nothing has to be read
 * while the program runs, and a grandchild that lives on and holds its output keeps nobody waiting.
 *
 * Calls with an input or with further descriptors, of which there are few, go the usual way.
 */
export function execWith(reaper: Reaper): Exec {
  const tools = { reaper, find: programFinder(), copies: new ProgramCopies() };
  return (file, args, options = {}) => {
    if (options.input !== undefined || options.extraFds !== undefined) return exec(file, args, options);
    return new Promise((resolve) => new Run(tools, file, args, options, resolve).start());
  };
}

type Find = (file: string, path: string) => string | undefined;

/** What all runs share. */
interface Tools {
  readonly reaper: Reaper;
  readonly find: Find;
  readonly copies: ProgramCopies;
}

/** One program, from its start to its result. */
class Run {
  readonly #started = performance.now();
  readonly #output: (number | undefined)[] = [undefined, undefined];
  #timer: NodeJS.Timeout | undefined;
  #pid = 0;
  #timedOut = false;
  #cancelled = false;

  readonly #tools: Tools;
  readonly #file: string;
  readonly #args: readonly string[];
  readonly #options: CommandOptions;
  readonly #resolve: (result: CommandResult) => void;

  constructor(
    tools: Tools,
    file: string,
    args: readonly string[],
    options: CommandOptions,
    resolve: (result: CommandResult) => void,
  ) {
    this.#tools = tools;
    this.#file = file;
    this.#args = args;
    this.#options = options;
    this.#resolve = resolve;
  }

  start(): void {
    const { timeoutMs, signal } = this.#options;
    try {
      this.#pid = this.#spawn();
    } catch (error) {
      this.#finish(undefined, error instanceof SysError ? error.code : 'UNKNOWN');
      return;
    }
    this.#tools.reaper.child(this.#pid, (exit) => this.#finish(exit, undefined));
    this.#options.onStart?.(this.#pid);
    this.#timer = setTimeout(() => {
      this.#timedOut = true;
      this.#kill();
    }, timeoutMs ?? DEFAULT_TIMEOUT_MS);
    if (signal?.aborted === true) this.#cancel();
    else signal?.addEventListener('abort', this.#cancel, { once: true });
  }

  #spawn(): number {
    const { openFiles, copiesItself = false } = this.#options;
    if (openFiles === undefined) return this.#launch(this.#file, this.#args, copiesItself);
    if (hasRoomFor(openFiles))
      return withOpenFiles(openFiles, () => this.#launch(this.#file, this.#args, copiesItself));
    return this.#launch(...limited(openFiles, this.#file, this.#args), false);
  }

  #launch(file: string, args: readonly string[], copiesItself: boolean): number {
    const { env = process.env, cwd = process.cwd(), stdioFds } = this.#options;
    const { find, copies } = this.#tools;
    const path = file.includes('/') ? file : find(file, env['PATH'] ?? DEFAULT_PATH);
    if (path === undefined) throw new SysError('posix_spawn', os.errno.ENOENT, file);
    const pairs: string[] = [];
    for (const [name, value] of Object.entries(env)) if (value !== undefined) pairs.push(`${name}=${value}`);
    const stdio = stdioFds ?? (['ignore', this.#capture(0), this.#capture(1)] as const);
    const program = copiesItself ? copies.of(path) : path;
    return spawnProgram(program, args, { cwd, name: path, env: pairs, stdio });
  }

  #capture(which: 0 | 1): number {
    return (this.#output[which] = memoryFile(this.#file));
  }

  readonly #cancel = (): void => {
    this.#cancelled = true;
    this.#kill();
  };

  /** The pid is still the program's: nobody but the reaper takes it away, and then this run is over. */
  #kill(): void {
    process.kill(this.#pid, 'SIGKILL');
  }

  #finish(exit: Exit | undefined, spawnError: string | undefined): void {
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#cancel);
    const [stdout = '', stderr = ''] = this.#output.map((fd) => (fd === undefined ? '' : contentOf(fd)));
    this.#resolve({
      exitCode: exit?.signal === undefined ? exit?.status : undefined,
      signal: exit?.signal,
      stdout,
      stderr,
      timedOut: this.#timedOut,
      cancelled: this.#cancelled,
      durationMs: performance.now() - this.#started,
      spawnError,
    });
  }
}

/** Reads a file from its beginning, whatever its descriptor's position, and closes it. */
function contentOf(fd: number): string {
  try {
    const bytes = Buffer.allocUnsafe(Math.min(fstatSync(fd).size, MAX_OUTPUT_BYTES));
    const length = bytes.length === 0 ? 0 : readSync(fd, bytes, 0, bytes.length, 0);
    return bytes.toString('utf8', 0, length);
  } finally {
    closeQuietly(fd);
  }
}

/** Looks programs up on PATH, and remembers where they were for as long as they are there. */
function programFinder(): Find {
  const known = new Map<string, string>();
  return (file, path) => {
    const key = `${path}\0${file}`;
    const before = known.get(key);
    if (before !== undefined && isExecutable(before)) return before;
    const places = path.split(':').map((folder) => `${folder === '' ? '.' : folder}/${file}`);
    const found = places.find(isExecutable);
    if (found !== undefined) known.set(key, found);
    // What is there but may not be executed is a better reason than that nothing is there.
    return found ?? places.find((place) => existsSync(place));
  };
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
