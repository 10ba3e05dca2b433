// The program `stasis`, for one command: what only a process can do. command-run.ts has the rest.
import { CommandRun } from './command-run.ts';

const command = new CommandRun(process.argv.slice(2), {
  env: process.env,
  cwd: () => process.cwd(),
  stdout: { fd: 1, open: () => process.stdout },
  stderr: { fd: 2, open: () => process.stderr },
  exit: (code) => process.exit(code),
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => command.interrupt());

/** Whether this run has used what most commands use: see loader.ts. */
export function isWorthKeeping(): boolean {
  return command.isComplete;
}

// Without waiting for Node to take its heap apart: some milliseconds of each command.
void command.run().then((code) => process.exit(code));
