import { spawn } from 'node:child_process';

/** What a finished program left behind. A program that ran and failed is a result, not an exception. */
export interface CommandResult {
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** Both are also said of a program that SIGKILL has not ended yet, which has no exit code and no signal then. */
  readonly timedOut: boolean;
  readonly cancelled: boolean;
  /** Wall time in milliseconds. */
  readonly durationMs: number;
  /** errno name where the program could not be started at all, e.g. `ENOENT`. */
  readonly spawnError: string | undefined;
}

/** How long a program may take to say what it is. A host that is swamped must not be taken for one that lacks it. */
export const ANSWER_TIMEOUT_MS = 60_000;

export interface CommandOptions {
  /** Milliseconds after which the program is killed. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /** Milliseconds that the killed program gets to be gone; 10 s where left out. */
  goneMs?: number;
  cwd?: string;
  /** Replaces the environment; the caller's own where left out. */
  env?: Record<string, string>;
  input?: string | Uint8Array;
  /** File descriptors that the program gets as 3, 4, … */
  extraFds?: readonly number[];
  /** Takes standard output as it comes, of any length; the result's `stdout` is empty then. */
  onStdout?: (chunk: Buffer) => void;
  /** Told the program's pid once it runs. */
  onStart?: (pid: number) => void;
  /** The program's soft limit of open files; this process's own where left out. */
  openFiles?: number;
  /** The program would copy itself into memory at its start: whoever starts it often may start such a copy. */
  copiesItself?: boolean;
  /** Standard streams as descriptors instead of captured text: [stdin, stdout, stderr]. */
  stdioFds?: readonly [number | 'ignore', number | 'ignore', number | 'ignore'];
}

/**
 * The one way to start a program: an argument array in, a typed result out. Doors to particular
 * programs (zfs, runc, criu) take an `Exec`, so that tests can record, count or fail commands.
 */
export type Exec = (
  file: string,
  args: readonly string[],
  options?: CommandOptions,
) => Promise<CommandResult>;

/** Milliseconds after which a program is killed that was given no other time. */
export const DEFAULT_TIMEOUT_MS = 120_000;
/** Milliseconds that a killed program gets to be gone that was given no other time. */
export const DEFAULT_GONE_MS = 10_000;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/**
 * Runs a program to its end. Never throws for what the program did; output beyond 64 MiB is dropped.
 *
 * Written on child_process rather than execa: the OCI runtime needs raw descriptors as its standard
 * streams, which execa's types refuse, and the shim is resident, so each loaded module is paid for
 * on every host.
 */
export const exec: Exec = (file, args, options = {}) =>
  new Promise((resolve) => {
    const [program, words] =
      options.openFiles === undefined ? [file, args] : limited(options.openFiles, file, args);
    const started = process.hrtime.bigint();
    const [stdin, stdout, stderr] = options.stdioFds ?? ['ignore' as const, 'pipe' as const, 'pipe' as const];
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    let timedOut = false;
    let cancelled = false;
    let spawnError: string | undefined;
    const out = new Capture();
    const err = new Capture();
    let patience: NodeJS.Timeout | undefined;
    const finish = (exitCode: number | null, signal: string | null): void => {
      clearTimeout(timer);
      clearTimeout(patience);
      options.signal?.removeEventListener('abort', cancel);
      resolve({
        exitCode: exitCode ?? undefined,
        signal: signal ?? undefined,
        stdout: out.text(),
        stderr: err.text(),
        timedOut,
        cancelled,
        durationMs: Number(process.hrtime.bigint() - started) / 1e6,
        spawnError,
      });
    };
    const child = spawn(program, words, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: [options.input === undefined ? stdin : 'pipe', stdout, stderr, ...(options.extraFds ?? [])],
    });
    if (child.pid !== undefined) options.onStart?.(child.pid);
    const kill = (): void => {
      child.kill('SIGKILL');
      // One that waits in the kernel for a dead disk cannot be killed, and a child of its own may hold the pipes.
      patience ??= setTimeout(() => {
        child.unref();
        child.stdout?.destroy();
        child.stderr?.destroy();
        finish(null, null);
      }, options.goneMs ?? DEFAULT_GONE_MS);
    };
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, timeoutMs);
    const cancel = (): void => {
      cancelled = true;
      kill();
    };
    if (options.signal?.aborted === true) cancel();
    else options.signal?.addEventListener('abort', cancel, { once: true });
    child.stdout?.on('data', options.onStdout ?? ((chunk: Buffer) => out.add(chunk)));
    child.stderr?.on('data', (chunk: Buffer) => err.add(chunk));
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (child.pid !== undefined) return;
      spawnError = error.code ?? 'UNKNOWN';
      finish(null, null);
    });
    child.on('close', (code, signal) => {
      if (spawnError === undefined) finish(code, signal);
    });
    if (options.input !== undefined) {
      child.stdin?.on('error', () => undefined); // the program may end without reading its input
      child.stdin?.end(options.input);
    }
  });

/** The program by way of a shell that sets its limit of open files. */
export function limited(openFiles: number, file: string, args: readonly string[]): [string, string[]] {
  return ['/bin/sh', ['-c', 'ulimit -Sn "$0"; exec "$@"', String(openFiles), file, ...args]];
}

class Capture {
  #chunks: Buffer[] = [];
  #size = 0;

  add(chunk: Buffer): void {
    if (this.#size >= MAX_OUTPUT_BYTES) return;
    this.#chunks.push(chunk.subarray(0, MAX_OUTPUT_BYTES - this.#size));
    this.#size += chunk.length;
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}
