// Which processes of a cgroup are a container's own.
import { readFileSync, statSync } from 'node:fs';

/** What is read of a process; undefined once it is gone. */
export interface ProcessFacts {
  /** Inode of its pid namespace: pid_namespaces(7). */
  pidNamespace(pid: number | 'self'): number | undefined;
  parent(pid: number): number | undefined;
}

const real: ProcessFacts = {
  pidNamespace(pid) {
    try {
      return statSync(`/proc/${pid}/ns/pid`).ino;
    } catch {
      return undefined;
    }
  },
  parent(pid) {
    try {
      return Number(/^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
    } catch {
      return undefined;
    }
  },
};

/**
 * Those of a cgroup's processes that live in the pid namespace of a container's first process, or in one below it. Two
 * containerds that each have a container of the same name give both the same cgroup (`/default/web`), and older OCI runtimes
 * only warn of that: whoever ends one container by its cgroup would end the other with it.
 * @returns all of them where the container has no pid namespace of its own, or its first process is gone: they cannot be told then
 */
export function ownProcesses(pids: readonly number[], init: number, facts: ProcessFacts = real): number[] {
  const isOwn = membership(init, facts);
  return pids.filter(isOwn);
}

/**
 * Those of a cgroup's processes that are somebody else's for sure. One that ends while it is looked at is nobody's: a shell that
 * starts a program ten times a second always has one that is just going.
 */
export function strangers(pids: readonly number[], init: number, facts: ProcessFacts = real): number[] {
  const isOwn = membership(init, facts);
  const suspects = pids.filter((pid) => !isOwn(pid));
  // Again, since a parent that ends leaves its child to another one.
  return suspects.filter((pid) => facts.pidNamespace(pid) !== undefined && !isOwn(pid));
}

function membership(init: number, facts: ProcessFacts): (pid: number) => boolean {
  const namespace = facts.pidNamespace(init);
  if (namespace === undefined || namespace === facts.pidNamespace('self')) return () => true;
  return (pid) => {
    // What is in a nested namespace descends from somebody in this one.
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = facts.parent(at))
      if (facts.pidNamespace(at) === namespace) return true;
    return false;
  };
}
