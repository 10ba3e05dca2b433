import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { askGuard } from '../../../src/shims/control.ts';
import { controlOf, listShims } from '../../../src/shims/list.ts';
import { runDir } from '../shim/shims.ts';
import { install, prepareVersions, removeVersions } from '../shim/versions.ts';
import { ended, endResidentShim, signal } from './process.ts';
import { ctr, dev, image, importImage, runtime, stack, until } from './stack.ts';

const config = readFileSync(stack.config, 'utf8');

export const useConfig = (text: string): void => writeFileSync(stack.config, text);
/** The stack's configuration with that in its section `[shim]`. */
export const configWith = (...shim: string[]): string => `${config}\n[shim]\n${shim.join('\n')}\n`;
export const guarded = configWith('guard = "on"');

/**
 * Has the shims of a file's tests be configured so, and others before and after.
 * @param version of which they are installed, where the tests replace that
 */
export function withShims(shims: string, version?: string): void {
  before(async () => {
    await importImage();
    if (version !== undefined) prepareVersions();
    useConfig(shims);
    if (version !== undefined) install(version);
    await endResidentShim('SIGTERM');
    if (version !== undefined) await dev('restart', 'containerd'); // which looks a shim up once
  });
  after(async () => {
    useConfig(config);
    await endResidentShim('SIGTERM');
    if (version === undefined) return;
    removeVersions();
    await dev('restart', 'containerd');
  });
}

/** What runs until it is ended, and ends at once. */
export const LOOP = 'while true; do sleep 0.1; done';

export const detached = (name: string, script: string, ...flags: string[]): Promise<string> =>
  ctr('run', '-d', '--null-io', '--runtime', runtime, ...flags, image, name, '/bin/sh', '-c', script);

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

/** The worker of namespace `default` that serves at this moment. */
export async function servingWorker(): Promise<number | undefined> {
  const shims = await listShims(runDir);
  const shim = shims.find(({ namespace, guard }) => namespace === 'default' && guard !== undefined);
  if (shim === undefined) return undefined;
  const answer = await askGuard(controlOf(shim.socket), 'status').catch(() => undefined);
  return answer !== undefined && 'status' in answer ? answer.status.worker?.pid : undefined;
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

/** A client with a terminal of its own. */
export interface TerminalClient {
  type(text: string): void;
  /** Settles once that has come out. */
  says(text: string): Promise<unknown>;
  /** Settles with the exit code. */
  readonly over: Promise<number | null>;
}

/** Runs a shell's command beside the test. */
export function terminal(command: string): TerminalClient {
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  return {
    type: (text) => void child.stdin.write(text),
    says: (text) => until(text, () => (out.includes(text) ? true : undefined)),
    over: new Promise((resolve) => child.once('close', resolve)),
  };
}

/** Numbered lines, and a script that prints them. @param pause seconds after each */
export const lines = (count: number): string =>
  Array.from({ length: count }, (_, i) => `${i + 1}\n`).join('');
export const counting = (to: number, pause: string): string =>
  `n=0; while [ $n -lt ${to} ]; do n=$((n + 1)); echo $n; sleep ${pause}; done`;
