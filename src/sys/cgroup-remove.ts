import { rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FailedPrecondition, hasErrno } from '../errors.ts';
import { cgroupPids, foldersOf, subfolders, type Cgroup } from './cgroup.ts';
import { freezerOf } from './cgroup-freezer.ts';
import { ownProcesses } from './own-processes.ts';

/**
 * Sends SIGKILL to every process of a cgroup, or to those of one container alone. Frozen ones die too: in v2 at once, in v1 with the thaw, which comes after
 * the signals, so that none of them runs another instruction of its own. In v2 the thaw is for what comes later: an empty
 * cgroup stays frozen, runc calls its container paused, and refuses to delete it.
 * @param init the container's first process: what is not in its pid namespace is somebody else's, and lives on
 * @throws FailedPrecondition, and kills nobody, where this process or the host's first one would be among them
 */
export async function killCgroup(cgroup: Cgroup, init?: number): Promise<void> {
  const pids = await cgroupPids(cgroup);
  const own = init === undefined ? pids : ownProcesses(pids, init);
  const host = own.find((pid) => pid === 1 || pid === process.pid);
  if (host !== undefined)
    throw new FailedPrecondition(
      `the cgroup ${cgroup.path} holds process ${host}, which is the host's and no container's: nothing in it is killed`,
      { subject: cgroup.path },
    );
  const folder = cgroup.folders.get('');
  const killed =
    own.length === pids.length &&
    cgroup.version === 2 &&
    folder !== undefined &&
    (await writes(join(folder, 'cgroup.kill'), '1'));
  for (const pid of killed ? [] : own) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (!hasErrno(error, 'ESRCH')) throw error;
    }
  }
  if (cgroup.folders.has('freezer') || cgroup.version === 2) await freezerOf(cgroup).thaw();
}

async function writes(file: string, text: string): Promise<boolean> {
  return writeFile(file, text, { flag: 'r+' }).then(
    () => true,
    () => false, // cgroup.kill came with Linux 5.14
  );
}

/**
 * Removes what a container left of its cgroup, leftover processes included. Succeeds where there is nothing.
 * @throws FailedPrecondition when a folder is still busy at the deadline
 */
export async function removeCgroup(cgroup: Cgroup, { timeoutMs = 2_000 } = {}): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (let pause = 1; ; pause = Math.min(pause * 2, 100)) {
    const left = await Promise.all(foldersOf(cgroup).map((folder) => removeTree(folder)));
    const busy = left.flat()[0];
    if (busy === undefined) return;
    if (performance.now() >= deadline) {
      throw new FailedPrecondition(`cgroup ${busy} is still busy`, { subject: busy });
    }
    await killCgroup(cgroup);
    await sleep(pause); // a killed process leaves its cgroup when it has been reaped by the kernel's own pace
  }
}

/** Leaves first; answers the folders that would not go. */
async function removeTree(folder: string): Promise<string[]> {
  const below = await Promise.all((await subfolders(folder)).map((child) => removeTree(child)));
  try {
    await rmdir(folder);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) return [folder];
  }
  return below.flat();
}
