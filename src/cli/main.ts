// The program `stasis`: what only a process can do. run.ts has the rest.
import { versionText } from './commands/version.ts';
import type { Host } from './host.ts';
import { StandardOutput } from './output.ts';

const argv = process.argv.slice(2);
const FAILED = 1;
const CANCELLED = 9;
let complete = false;
let lost: Error | undefined;
const stdout = new StandardOutput(
  1,
  () => process.stdout,
  (error) => {
    if (isClosed(error)) process.exit(0);
    lost ??= error;
  },
);
const stderr = new StandardOutput(
  2,
  () => process.stderr,
  () => undefined, // there is nowhere to say it
);

/** Whether this run has used what most commands use: see loader.ts. */
export function isWorthKeeping(): boolean {
  return complete;
}

if (argv.length === 1 && (argv[0] === 'version' || argv[0] === '--version' || argv[0] === '-v')) {
  stdout.write(versionText());
  leave(0);
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
  const host: Host = {
    env: process.env,
    cwd: () => process.cwd(),
    stdout,
    stderr,
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
  stdout.end(() => {
    if (lost !== undefined) outputLost(lost);
    stderr.end(() => process.exit());
  });
}

/** Whether nobody reads any more: `stasis ls | head` is over when head is. */
function isClosed(error: NodeJS.ErrnoException): boolean {
  return error.code === 'EPIPE';
}

/** A script that keeps what we print must not take half of it for all. */
function outputLost(error: Error): void {
  stderr.write(`stasis: the output could not be written: ${error.message}\n`);
  if (!process.exitCode) process.exitCode = FAILED;
}
