import { readFileSync } from 'node:fs';
import { FailedPrecondition } from '../../src/errors.ts';
import { pidsAt } from '../../src/sys/cgroup.ts';

/**
 * Refuses a cgroup that holds processes, as runc does from 1.2 on. Another containerd of this host can have a container of the
 * same namespace and name, and with it the same path: to freeze one for a checkpoint would freeze the other.
 * @param path undefined where it depends on the OCI runtime
 * @throws FailedPrecondition naming one of them
 */
export function assertNobodyIn(path: string | undefined, id: string): void {
  if (path === undefined || path === '/') return;
  const [pid, ...others] = pidsAt(path);
  if (pid === undefined) return;
  const more = others.length === 0 ? '' : ` and ${others.length} more`;
  throw new FailedPrecondition(
    `the cgroup ${path} of container ${id} is in use by process ${pid}${nameOf(pid)}${more}: another containerd of this host has a container of that name perhaps. Give this one another name, namespace or cgroup`,
    { subject: id },
  );
}

function nameOf(pid: number): string {
  try {
    return ` (${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()})`;
  } catch {
    return ''; // it has ended
  }
}
