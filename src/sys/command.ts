import { spawn } from 'node:child_process';

/** What a finished program left behind. A program that ran and failed is a result, not an exception. */
export interface CommandResult {
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly timedOut: boolean;
  readonly cancelled: boolean;
  /** Wall time in milliseconds. */
  readonly durationMs: number;
  /** errno name where the program could not be started at all, e.g. `ENOENT`. */
  readonly spawnError: string | undefined;
}

export interface CommandOptions {
  /** Milliseconds after which the program is killed. */
  timeoutMs?: number;
  signal?: AbortSignal;
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

const DEFAULT_TIMEOUT_MS = 120_000;
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
    const started = process.hrtime.bigint();
    const [stdin, stdout, stderr] = options.stdioFds ?? ['ignore' as const, 'pipe' as const, 'pipe' as const];
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    let timedOut = false;
    let cancelled = false;
    let spawnError: string | undefined;
    const out = new Capture();
    const err = new Capture();
    const finish = (exitCode: number | null, signal: string | null): void => {
      clearTimeout(timer);
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
    const child = spawn(file, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: [options.input === undefined ? stdin : 'pipe', stdout, stderr, ...(options.extraFds ?? [])],
    });
    if (child.pid !== undefined) options.onStart?.(child.pid);
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    const cancel = (): void => {
      cancelled = true;
      child.kill('SIGKILL');
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
