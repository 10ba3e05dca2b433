// The program `stasis`: what only a process can do. run.ts has the rest.
import { version } from '../version.ts';
import { versionText } from './commands/version.ts';
import { cacheCompiledCode } from './compile-cache.ts';
import type { Host } from './host.ts';

const argv = process.argv.slice(2);
const CANCELLED = 9;

if (argv.length === 1 && (argv[0] === 'version' || argv[0] === '--version' || argv[0] === '-v')) {
  process.stdout.write(versionText());
} else {
  void main().then((code) => (process.exitCode = code));
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
  // Sources are compiled anew at each change, and their folder is no place for a cache.
  if (version !== '0.0.0-source') cacheCompiledCode(process.argv[1]);
  const { run } = await import('./run.ts');
  return run(argv, host);
}
