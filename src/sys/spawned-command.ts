import { fstatSync, readSync } from 'node:fs';
import { constants as os } from 'node:os';
import {
  DEFAULT_GONE_MS,
  DEFAULT_TIMEOUT_MS,
  exec,
  limited,
  type CommandOptions,
  type CommandResult,
  type Exec,
} from './command.ts';
import { closeQuietly } from './descriptor.ts';
import { SysError } from './libc.ts';
import { findProgram } from './find-program.ts';
import { hasRoomFor, withOpenFiles } from './open-files.ts';
import { ProgramCopies } from './program-copies.ts';
import { memoryFile, spawnProgram } from './spawn.ts';
import { type Exited, reap } from './wait.ts';

const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Who waits for this process's children. */
export interface Children {
  /** Calls back once with the end of a child that was started in this very turn, so that its pid is nobody else's. */
  child(pid: number, onExit: (exit: Exited) => void): void;
}

/** Waits for the children that it is told of, and for no other: libuv's are libuv's. */
export class OwnChildren implements Children {
  readonly #watched = new Map<number, (exit: Exited) => void>();

  constructor() {
    process.on('SIGCHLD', () => this.#collect());
  }

  child(pid: number, onExit: (exit: Exited) => void): void {
    this.#watched.set(pid, onExit);
  }

  #collect(): void {
    for (const [pid, onExit] of [...this.#watched]) {
      const exited = reap(pid);
      if (exited === undefined) continue;
      this.#watched.delete(pid);
      onExit(exited);
    }
  }
}

/**
 * `exec` of command.ts for a process that waits for its children, without child_process, whose fork of a process as large
 * as ours takes several times as long as the rest. Output goes to files in memory, so that nothing has to be read
 * while the program runs, and a grandchild that lives on and holds its output keeps nobody waiting.
 *
 * Calls with an input, with further descriptors, or whose output is wanted as it comes, go the usual way.
 */
export function execWith(children: Children): Exec {
  const tools = { children, copies: new ProgramCopies() };
  return (file, args, options = {}) => {
    const { input, extraFds, onStdout } = options;
    if ([input, extraFds, onStdout].some((one) => one !== undefined)) return exec(file, args, options);
    return new Promise((resolve) => new Run(tools, file, args, options, resolve).start());
  };
}

/** What all runs share. */
interface Tools {
  readonly children: Children;
  readonly copies: ProgramCopies;
}

/** One program, from its start to its result. */
class Run {
  readonly #started = performance.now();
  readonly #output: (number | undefined)[] = [undefined, undefined];
  #timer: NodeJS.Timeout | undefined;
  #patience: NodeJS.Timeout | undefined;
  #pid = 0;
  #timedOut = false;
  #cancelled = false;
  #over = false;

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
    this.#tools.children.child(this.#pid, (exit) => this.#finish(exit, undefined));
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
    const { copies } = this.#tools;
    const path = file.includes('/') ? file : findProgram(file, env['PATH'] ?? DEFAULT_PATH);
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

  /** The pid is still the program's: nobody but who waits for it takes it away, and then this run is over. */
  #kill(): void {
    process.kill(this.#pid, 'SIGKILL');
    // One that waits in the kernel for a dead disk cannot be killed. Whenever it ends it is waited for all the same.
    this.#patience ??= setTimeout(
      () => this.#finish(undefined, undefined),
      this.#options.goneMs ?? DEFAULT_GONE_MS,
    );
  }

  #finish(exit: Exited | undefined, spawnError: string | undefined): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#patience);
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
