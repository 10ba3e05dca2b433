// The program `stasis`: what only a process can do. run.ts has the rest.
import { versionText } from './commands/version.ts';
import type { Host } from './host.ts';

const argv = process.argv.slice(2);
const FAILED = 1;
const CANCELLED = 9;
let complete = false;

/** Whether this run has used what most commands use: see loader.ts. */
export function isWorthKeeping(): boolean {
  return complete;
}

if (argv.length === 1 && (argv[0] === 'version' || argv[0] === '--version' || argv[0] === '-v')) {
  process.stdout.write(versionText());
} else {
  void main().then(leave);
}

async function main(): Promise<number> {
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      // The first cancels the call and waits for its end; who asks twice does not want to wait.
      if (controller.signal.aborted) process.exit(CANCELLED);
      controller.abort();
    });
  }
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (isClosed(error)) process.exit(0);
  });
  process.stderr.on('error', () => undefined);
  const host: Host = {
    env: process.env,
    cwd: () => process.cwd(),
    stdout: process.stdout,
    stderr: process.stderr,
    signal: controller.signal,
    now: Date.now,
  };
  const { run } = await import('./run.ts');
  const code = await run(argv, host);
  complete = true;
  return code;
}

/**
 * Ends once everything written has gone out, without waiting for Node to take its heap apart: some milliseconds of each
 * command.
 */
function leave(code: number): void {
  process.exitCode = code;
  process.stdout.write('', () => {
    const { errored } = process.stdout;
    if (errored !== null && !isClosed(errored)) outputLost(errored);
    process.stderr.write('', () => process.exit());
  });
}

/** Whether nobody reads any more: `stasis ls | head` is over when head is. */
function isClosed(error: NodeJS.ErrnoException): boolean {
  return error.code === 'EPIPE';
}

/** A script that keeps what we print must not take half of it for all. */
function outputLost(error: Error): void {
  process.stderr.write(`stasis: the output could not be written: ${error.message}\n`);
  if (!process.exitCode) process.exitCode = FAILED;
}
