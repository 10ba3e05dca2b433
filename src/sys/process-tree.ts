import { readFileSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno } from '../errors.ts';

/**
 * Ends every process whose working directory is `folder`, with all that descend from it: what a program left behind that
 * was killed while programs worked for it there. This process and its parent are spared. Nothing to end is no error.
 * @param timeoutMs how long to wait for them to be gone
 * @param isSpared whether a process of these arguments, and what descends from it alone, is left
 */
export async function endProcessesAt(
  folder: string,
  { timeoutMs = 5_000, isSpared = (_args: readonly string[]): boolean => false } = {},
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  // Again and again, as those that die last may have started others.
  for (let pause = 2; ; pause = Math.min(pause * 2, 50)) {
    const pids = await treesAt(folder, isSpared);
    if (pids.length === 0 || Date.now() >= deadline) return;
    for (const pid of pids) kill(pid);
    await sleep(pause);
  }
}

/** Those of `pids` that are one of `roots`, or descend from one by way of others of `pids`. */
export function descendantsOf(roots: readonly number[], pids: readonly number[]): number[] {
  const parents = new Map(pids.map((pid) => [pid, parentOf(pid)]));
  const isBelow = (pid: number): boolean => {
    for (let at: number | undefined = pid; at !== undefined; at = parents.get(at))
      if (roots.includes(at)) return true;
    return false;
  };
  return pids.filter(isBelow);
}

/** Undefined for a process that has ended. */
function parentOf(pid: number): number | undefined {
  try {
    return fieldsOf(readFileSync(`/proc/${pid}/stat`, 'latin1')).parent;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ESRCH')) return undefined;
    throw error;
  }
}

async function treesAt(folder: string, isSpared: (args: readonly string[]) => boolean): Promise<number[]> {
  const children = new Map<number, number[]>();
  const found: number[] = [];
  const names = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  await Promise.all(
    names.map(async (name) => {
      const pid = Number(name);
      const { parent, state } = await statOf(pid);
      if (state === 'Z' || pid === process.pid || pid === process.ppid) return;
      children.set(parent, [...(children.get(parent) ?? []), pid]);
      if ((await worksAt(pid, folder)) && !isSpared(await argumentsOf(pid))) found.push(pid);
    }),
  );
  const all = new Set(found);
  for (const pid of all) for (const child of children.get(pid) ?? []) all.add(child);
  return [...all];
}

/** Fields 3 and 4 of proc_pid_stat(5); of a process that has ended, those of a zombie. */
async function statOf(pid: number): Promise<{ state: string; parent: number }> {
  return fieldsOf(await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => ''));
}

function fieldsOf(stat: string): { state: string; parent: number } {
  const [state = 'Z', parent = '0'] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { state: state === '' ? 'Z' : state, parent: Number(parent) };
}

async function argumentsOf(pid: number): Promise<string[]> {
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return text.split('\0').slice(0, -1);
}

/** A folder that was removed meanwhile is shown with a remark behind its name, proc_pid_cwd(5). */
async function worksAt(pid: number, folder: string): Promise<boolean> {
  const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
  return cwd === folder || cwd === `${folder} (deleted)`;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!hasErrno(error, 'ESRCH')) throw error;
  }
}
