import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { ended, signal } from './process.ts';
import { until } from './stack.ts';

/** The worker of a guard; waits for one to come. */
export async function workerPid(guard: number): Promise<number> {
  return until('a worker', () => {
    const children = readFileSync(`/proc/${guard}/task/${guard}/children`, 'utf8').trim().split(' ');
    return children
      .filter((pid) => pid !== '')
      .map(Number)
      .find((pid) => readCommand(pid).endsWith('\0worker\0'));
  });
}

function readCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return ''; // it has ended
  }
}

export async function killWorker(guard: number): Promise<void> {
  const pid = await workerPid(guard);
  signal(pid, 'SIGKILL');
  await ended(pid);
}

/** What a client has printed, and how it ended. */
export interface Outcome {
  readonly out: string;
  readonly code: number | null;
}

/** Runs ctr beside the test. */
export function client(...args: string[]): Promise<Outcome> {
  const child = spawn('ctr', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  return new Promise((resolve) => child.once('close', (code) => resolve({ out, code })));
}

/** Numbered lines, and a script that prints them. @param pause seconds after each */
export const lines = (count: number): string =>
  Array.from({ length: count }, (_, i) => `${i + 1}\n`).join('');
export const counting = (to: number, pause: string): string =>
  `n=0; while [ $n -lt ${to} ]; do n=$((n + 1)); echo $n; sleep ${pause}; done`;
