import { spawn, type ChildProcess } from 'node:child_process';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineExceeded, FailedPrecondition, messageOf } from '../../src/errors.ts';
import { pipe } from '../../src/sys/descriptor.ts';
import { Held } from './pipes.ts';

const READY_TIMEOUT_MS = 10_000;
const TERM_GRACE_MS = 12_000;

export interface LogProgramOptions {
  readonly path: string;
  readonly args: readonly string[];
  readonly containerId: string;
  readonly namespace: string;
}

/**
 * A client's logging program (`binary://`). It reads the container's output from descriptors 3 and 4 and reports that it
 * is ready through 5, by a byte or by closing it. Its environment has the container's id and namespace alone.
 */
export class LogProgram {
  /** Ends of the two pipes for the container, to be closed once handed over. */
  readonly stdout: number;
  readonly stderr: number;
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;

  private constructor(child: ChildProcess, exited: Promise<void>, stdout: number, stderr: number) {
    this.#child = child;
    this.#exited = exited;
    this.stdout = stdout;
    this.stderr = stderr;
  }

  /**
   * Starts the program and waits until it is ready.
   * @throws FailedPrecondition when it cannot be started, DeadlineExceeded when it is not ready in time
   */
  static async start(options: LogProgramOptions, held: Held): Promise<LogProgram> {
    const theirs = new Held();
    const [out, err, ready] = [pipe(), pipe(), pipe()];
    for (const fd of [out.read, err.read, ready.write]) theirs.add(fd);
    for (const fd of [out.write, err.write]) held.add(fd);
    const child = spawn(options.path, options.args, {
      stdio: ['ignore', 'ignore', 'ignore', out.read, err.read, ready.write],
      env: { CONTAINER_ID: options.containerId, CONTAINER_NAMESPACE: options.namespace },
      cwd: '/',
    });
    const exited = new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
    const spawned = new Promise<void>((resolve, reject) => {
      child.once('spawn', () => resolve());
      child.once('error', reject);
    });
    theirs.release();
    const signal = new Socket({ fd: ready.read, readable: true, writable: false });
    try {
      await spawned;
      await readiness(signal);
    } catch (error) {
      child.kill('SIGKILL');
      if (error instanceof DeadlineExceeded) throw error;
      throw new FailedPrecondition(
        `failed to start the logging program ${options.path}: ${messageOf(error)}`,
        {
          subject: options.path,
          cause: error,
        },
      );
    } finally {
      signal.destroy();
    }
    return new LogProgram(child, exited, out.write, err.write);
  }

  /** Settles when the program has ended, which it does on its own when the output has. */
  get exited(): Promise<void> {
    return this.#exited;
  }

  /** Asks the program to end, and kills it 12 seconds later. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    const timer = new AbortController();
    await Promise.race([
      this.#exited,
      sleep(TERM_GRACE_MS, undefined, { signal: timer.signal, ref: false }).catch(() => undefined),
    ]);
    timer.abort();
    this.#child.kill('SIGKILL');
  }
}

/** A byte, or the end, within ten seconds. */
function readiness(signal: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new DeadlineExceeded('the logging program did not get ready within 10 s'));
    }, READY_TIMEOUT_MS);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    signal.once('data', done);
    signal.once('end', done);
    signal.once('close', done);
    signal.once('error', done);
  });
}
