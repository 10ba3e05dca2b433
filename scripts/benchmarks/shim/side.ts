// The two runtimes that group `shim` compares, through ctr on one containerd and one snapshotter.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../measure.ts';

const state = process.env['STASIS_STATE'] ?? '';
const address = process.env['CONTAINERD_ADDRESS'] ?? '';
export const image = 'docker.io/bench/small:latest';
const FOREVER = ['sleep', '1000000'];

export interface Side {
  readonly name: 'ours' | 'theirs';
  readonly runtime: string;
}
export const ours: Side = { name: 'ours', runtime: 'io.containerd.stasis.v2' };
export const theirs: Side = { name: 'theirs', runtime: 'io.containerd.runc.v2' };
export const peerName = 'containerd-shim-runc-v2';

/** ctr in a namespace. */
export function ctr(namespace: string, ...args: string[]): string {
  return run('ctr', '--namespace', namespace, ...args);
}

export function runArguments({ runtime }: Side, ...flags: string[]): string[] {
  return ['run', ...flags, '--runtime', runtime, '--snapshotter', 'overlayfs', image];
}

/** Makes the image known to a namespace. */
export function importImage(namespace: string): void {
  const file = join(state, 'data/bench.tar');
  ctr(namespace, 'images', 'import', '--snapshotter', 'overlayfs', file);
}

/** Starts containers that do nothing, `parallel` at a time, named `<side><number>` with numbers from `from` on. */
export async function startIdle(
  namespace: string,
  side: Side,
  from: number,
  count: number,
  parallel: number,
): Promise<void> {
  let next = from;
  const worker = async (): Promise<void> => {
    while (next < from + count) {
      const id = `${side.name}${next++}`;
      await start('ctr', ['--namespace', namespace, ...runArguments(side, '-d'), id, ...FOREVER]);
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

/** Removes containers with their tasks; of none it is no error. */
export async function removeAll(namespace: string, side?: Side): Promise<void> {
  const ids = ctr(namespace, 'containers', 'ls', '-q').split(/\s+/).filter(Boolean);
  const meant = ids.filter((id) => id.startsWith(side?.name ?? ''));
  for (let at = 0; at < meant.length; at += 4) {
    await Promise.all(
      meant
        .slice(at, at + 4)
        .map((id) =>
          start('sh', ['-c', `ctr -n "$0" tasks rm -f "$1"; ctr -n "$0" containers rm "$1"`, namespace, id]),
        ),
    );
  }
}

/** Takes a namespace away with everything in it. */
export async function removeNamespace(namespace: string): Promise<void> {
  await removeAll(namespace);
  for (const name of ctr(namespace, 'images', 'ls', '-q').split(/\s+/).filter(Boolean))
    ctr(namespace, 'images', 'rm', '--sync', name);
  ctr(namespace, 'namespaces', 'rm', namespace);
}

/** How many of a side's tasks containerd says are running. */
export function countRunning(namespace: string, side: Side): number {
  const lines = ctr(namespace, 'tasks', 'ls').split('\n');
  return lines.filter((line) => line.startsWith(side.name) && /\bRUNNING\b/.test(line)).length;
}

/** The socket of a task's shim, from the bundle: `address` up to containerd 1.7, `bootstrap.json` after it. */
export function shimOf(namespace: string, id: string): { socket: string; version: number } {
  const bundle = join(state, 'containerd/state/io.containerd.runtime.v2.task', namespace, id);
  try {
    const text = readFileSync(join(bundle, 'bootstrap.json'), 'utf8');
    const parsed = JSON.parse(text) as { address: string; version: number };
    return { socket: parsed.address, version: parsed.version };
  } catch {
    return { socket: readFileSync(join(bundle, 'address'), 'utf8').trim(), version: 2 };
  }
}

/** Pids of the shims that serve a namespace of this containerd. */
export function shimPids(namespace: string, side: Side): number[] {
  const name = side === ours ? '/shim.mjs' : '/containerd-shim-runc-v2';
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      const words = wordsOf(pid);
      const at = words.indexOf('-namespace');
      return (
        words.some((word) => word.endsWith(name)) &&
        words[at + 1] === namespace &&
        words[words.indexOf('-address') + 1] === address
      );
    })
    .map(Number);
}

/** A process's command line; none where it has ended meanwhile. */
function wordsOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/** Ends our shim of a namespace, which has no container, and waits until it is gone. */
export function endIdleShim(namespace: string): void {
  const deadline = Date.now() + 10_000;
  for (const pid of shimPids(namespace, ours)) process.kill(pid, 'SIGTERM');
  while (shimPids(namespace, ours).length > 0) {
    if (Date.now() > deadline) throw new Error(`the shim of ${namespace} does not end`);
    run('sleep', '0.05');
  }
}

/** Runs a program that has to succeed, without waiting on this thread. */
export function start(file: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${file} ${args.join(' ')} ended with ${code}: ${errors}`)),
    );
  });
}
