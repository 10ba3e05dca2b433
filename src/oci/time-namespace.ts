// CRIU restores a container into a time namespace, so that its clocks go on where they stood. What joins it has to join
// that too, which neither runtime does: runc before 1.2 knows no time namespaces, and both join only those of the spec.
import { mkdir, readdir, readFile, readlink, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Exec } from '../sys/command.ts';
import { OciError } from './error.ts';
import type { RuntimeName } from './types.ts';

const TIMEOUT_MS = 10_000;

/** Where each runtime keeps a container's state, and its name for the start time of the first process. */
const stateFiles: Readonly<Record<RuntimeName, readonly [file: string, key: string]>> = {
  runc: ['state.json', 'init_process_start'],
  crun: ['status', 'process-start-time'],
};

/** Whether the clocks of a process are other ones than ours: time_namespaces(7). False where the kernel has no such. */
export async function hasOwnClocks(pid: number): Promise<boolean> {
  const of = (who: number | string): Promise<string> => readlink(`/proc/${who}/ns/time`).catch(() => '');
  const [theirs, ours] = await Promise.all([of(pid), of('self')]);
  return theirs !== '' && theirs !== ours;
}

/** The command that runs a program with the clocks of a process; nsenter(1). */
export function withClocksOf(pid: number): string[] {
  return ['nsenter', `--time=/proc/${pid}/ns/time`, '--'];
}

/**
 * A root folder for a runtime that runs with the clocks of a restored container. The kernel tells the start time of a
 * process by the clock of who asks, and both runtimes take a process with another start time than they noted for another one:
 * `cannot exec in a stopped container`. So the runtime is given its own state, with the start time as it will see it.
 * @param folder where to make it; what is there from an earlier call is replaced
 */
export async function rootAsSeenBy(
  pid: number,
  runtime: RuntimeName,
  { exec, root, id, folder }: { exec: Exec; root: string; id: string; folder: string },
): Promise<string> {
  const [file, key] = stateFiles[runtime];
  const start = await startTimeAsSeenBy(pid, exec, id);
  const from = join(root, id);
  const to = join(folder, id);
  await mkdir(to, { recursive: true, mode: 0o700 });
  // As text: the numbers in it are larger than JavaScript's.
  const state = await readFile(join(from, file), 'utf8');
  const part = join(to, `${file}.${process.hrtime.bigint()}`);
  await writeFile(part, state.replace(new RegExp(`("${key}": *)\\d+`), `$1${start}`), { mode: 0o600 });
  await rename(part, join(to, file));
  for (const name of await readdir(from)) {
    if (name !== file) await symlink(join(from, name), join(to, name)).catch(() => undefined); // there already
  }
  return folder;
}

/** Field 22 of /proc/PID/stat, read with the process's own clocks. */
async function startTimeAsSeenBy(pid: number, exec: Exec, id: string): Promise<number> {
  const [program = '', ...args] = withClocksOf(pid);
  const result = await exec(program, [...args, 'cat', `/proc/${pid}/stat`], { timeoutMs: TIMEOUT_MS });
  const start = Number(result.stdout.slice(result.stdout.lastIndexOf(')') + 2).split(' ')[19]);
  if (result.exitCode === 0 && Number.isInteger(start)) return start;
  throw new OciError('unknown', 'exec', {
    subject: id,
    said: `its time namespace cannot be entered: ${result.spawnError ?? result.stderr.trim()}`,
    remedy: 'install util-linux 2.36 or newer, whose nsenter can',
  });
}
