import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno } from '../errors.ts';

/**
 * Ends the CRIU that a killed OCI runtime left behind: the runtime's death does not end it, so it would go on holding the
 * container's tasks and writing the image. It is known by its name and by having a file of the given folders open.
 * Returns once it is gone (its tasks then run on, by ptrace(2)) or the deadline has passed; answers how many it ended.
 */
export async function endStrayCriu(folders: readonly string[], { timeoutMs = 5_000 } = {}): Promise<number> {
  const deadline = performance.now() + timeoutMs;
  const ended = new Set<number>();
  for (;;) {
    const strays = await findCriu(folders);
    if (strays.length === 0 || performance.now() > deadline) return ended.size;
    for (const pid of strays) {
      try {
        process.kill(pid, 'SIGKILL');
        ended.add(pid);
      } catch (error) {
        if (!hasErrno(error, 'ESRCH')) throw error;
      }
    }
    await sleep(5);
  }
}

async function findCriu(folders: readonly string[]): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
      return name === 'criu\n' && (await holds(pid, folders)) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}

async function holds(pid: string, folders: readonly string[]): Promise<boolean> {
  // A zombie has no descriptors, so it counts as gone.
  const names = await readdir(`/proc/${pid}/fd`).catch(() => []);
  const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')));
  return targets.some((target) =>
    folders.some((folder) => target === folder || target.startsWith(`${folder}/`)),
  );
}
