// One run of the command line: what becomes of its signals and of its output, whichever process it runs in.
import { hasErrno } from '../errors.ts';
import { versionText } from './commands/version.ts';
import type { Host } from './host.ts';
import { StandardOutput, type OutputStream } from './output.ts';

const FAILED = 1;
const CANCELLED = 9;

/** Standard output or error of the run. */
export interface Descriptor {
  readonly fd: number;
  /** Makes Node's stream of it. */
  readonly open: () => OutputStream;
}

/** What the process gives to the run. */
export interface Surroundings {
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: () => string;
  readonly stdout: Descriptor;
  readonly stderr: Descriptor;
  /** Ends all that the run does, at once, and tells its caller this exit code. */
  readonly exit: (code: number) => void;
}

export class CommandRun {
  readonly #argv: readonly string[];
  readonly #surroundings: Surroundings;
  readonly #controller = new AbortController();
  readonly #stdout: StandardOutput;
  readonly #stderr: StandardOutput;
  #lost: Error | undefined;
  #complete = false;

  constructor(argv: readonly string[], surroundings: Surroundings) {
    this.#argv = argv;
    this.#surroundings = surroundings;
    const { stdout, stderr } = surroundings;
    this.#stdout = new StandardOutput(stdout.fd, stdout.open, (error) => {
      // Nobody reads any more: `stasis ls | head` is over when head is.
      if (hasErrno(error, 'EPIPE')) surroundings.exit(0);
      this.#lost ??= error;
    });
    this.#stderr = new StandardOutput(stderr.fd, stderr.open, () => undefined); // there is nowhere to say it
  }

  /** Whether this run has used what most commands use: see loader.ts. */
  get isComplete(): boolean {
    return this.#complete;
  }

  /** The first time cancels the call and waits for its end; who asks twice does not want to wait. */
  interrupt(): void {
    if (this.#controller.signal.aborted) this.#surroundings.exit(CANCELLED);
    this.#controller.abort();
  }

  /** The exit code, once all that was written has gone out. */
  async run(): Promise<number> {
    const code = await this.#work();
    await new Promise<void>((resolve) => this.#stdout.end(resolve));
    const failed = this.#lost === undefined ? code : this.#outputLost(code, this.#lost);
    await new Promise<void>((resolve) => this.#stderr.end(resolve));
    return failed;
  }

  /** Closes the descriptors. */
  close(): void {
    this.#stdout.close();
    this.#stderr.close();
  }

  async #work(): Promise<number> {
    const argv = this.#argv;
    const [stdout, stderr] = [this.#stdout, this.#stderr];
    if (argv.length === 1 && ['version', '--version', '-v'].includes(argv[0] ?? '')) {
      stdout.write(versionText());
      return 0;
    }
    const { env, cwd } = this.#surroundings;
    const host: Host = { env, cwd, stdout, stderr, signal: this.#controller.signal, now: Date.now };
    const { run } = await import('./run.ts');
    const code = await run(argv, host);
    this.#complete = true;
    return code;
  }

  /** A script that keeps what we print must not take half of it for all. */
  #outputLost(code: number, error: Error): number {
    this.#stderr.write(`stasis: the output could not be written: ${error.message}\n`);
    return code === 0 ? FAILED : code;
  }
}
