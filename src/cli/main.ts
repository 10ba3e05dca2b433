// The program `stasis`: what only a process can do. run.ts has the rest.
import { versionText } from './commands/version.ts';
import type { Host } from './host.ts';

const argv = process.argv.slice(2);
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
  // `stasis ls | head` is over when head is.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
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
  process.stdout.write('', () => process.stderr.write('', () => process.exit()));
}
