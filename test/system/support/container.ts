import { statSync } from 'node:fs';
import { attempt, ctr, image, must, readIfThere, runtime, until } from './stack.ts';

let sequence = 0;

/** A name that no other test uses. */
export function uniqueName(prefix = 't'): string {
  return `${prefix}-${process.pid.toString(36)}-${++sequence}`;
}

/** Starts a container that runs the writer; see writer.pl. */
export async function startWriter(
  name: string,
  options: { megabytes?: number; flags?: string[] } = {},
): Promise<void> {
  const { megabytes = 0, flags = [] } = options;
  await startContainer(name, ['/bin/perl', '/writer.pl', String(megabytes), '0.002'], flags);
  await progress(name, 3);
}

export async function startContainer(
  name: string,
  args: string[],
  flags: string[] = [],
  from = image,
): Promise<void> {
  const chosen = flags.some((flag) => flag === '--runtime') ? [] : ['--runtime', runtime];
  const snapshotter = flags.some((flag) => flag === '--snapshotter') ? [] : ['--snapshotter', 'stasis'];
  await ctr('run', '-d', '--null-io', ...chosen, ...snapshotter, ...flags, from, name, ...args);
}

/** The process id of a running task; undefined where there is none that runs. */
export async function pidOf(name: string): Promise<number | undefined> {
  for (const line of (await ctr('tasks', 'ls')).split('\n')) {
    const [task, pid, status] = line.trim().split(/\s+/);
    if (task === name && (status === 'RUNNING' || status === 'PAUSED')) return Number(pid);
  }
  return undefined;
}

export async function statusOf(name: string): Promise<string | undefined> {
  for (const line of (await ctr('tasks', 'ls')).split('\n')) {
    const [task, , status] = line.trim().split(/\s+/);
    if (task === name) return status;
  }
  return undefined;
}

/** A path in a running container's file system, as the host sees it. */
export async function inside(name: string, path: string): Promise<string> {
  const pid = await pidOf(name);
  if (pid === undefined) throw new Error(`container ${name} does not run`);
  return `/proc/${pid}/root${path}`;
}

/** How far the writer in a container has counted, by the file that it appends to. */
export async function count(name: string): Promise<number> {
  const size = statSync(await inside(name, '/appended'), { throwIfNoEntry: false })?.size ?? 0;
  return size / 9;
}

/** Waits until the writer has counted on by `steps`. @throws where it found memory and disk apart */
export async function progress(name: string, steps: number): Promise<number> {
  let first: number | undefined;
  return until(`container ${name} to count on by ${steps}`, async () => {
    const torn = readIfThere(await inside(name, '/torn').catch(() => '/nonexistent'));
    if (torn !== undefined) throw new Error(`memory and disk of ${name} are apart: ${torn}`);
    const now = await count(name);
    first ??= now;
    return now >= first + steps ? now : undefined;
  });
}

/** Removes a container with its task; what is missing is no error. */
export async function removeContainer(...names: string[]): Promise<void> {
  for (const name of names) {
    await attempt('ctr', ['tasks', 'rm', '-f', name]);
    await attempt('ctr', ['containers', 'rm', name]);
  }
}

/** Removes containers and all their checkpoints. */
export async function removeAll(...names: string[]): Promise<void> {
  await removeContainer(...names);
  for (const name of names) {
    const checkpoints = await checkpointsOf(name);
    if (checkpoints.length > 0) await must('stasis', ['rm', name, ...checkpoints]);
  }
}

/** Names of a container's checkpoints, oldest first. */
export async function checkpointsOf(name: string): Promise<string[]> {
  const result = await attempt('stasis', ['ls', name, '--json']);
  if (result.exitCode !== 0) return [];
  const { containers } = JSON.parse(result.stdout) as { containers: { checkpoints: { name: string }[] }[] };
  return containers.flatMap((container) => container.checkpoints.map((checkpoint) => checkpoint.name));
}
