import { mountedHierarchies } from '../sys/cgroup.ts';

/**
 * Where CRIU has to put what it restores. On cgroup v2 runc up to 1.1 moves CRIU itself into the new container's cgroup and
 * does not tell it of that (as it does on v1): CRIU goes by the dump, and a clone comes up in its source's cgroup, to be
 * frozen, limited and killed with it. The configuration file tells CRIU.
 * @param cgroupsPath of the container's specification
 * @returns a line for CRIU's configuration; none on v1, and none where systemd or the runtime chooses the path
 */
export function cgroupRoot(cgroupsPath: unknown, hierarchies = mountedHierarchies()): string[] {
  if (typeof cgroupsPath !== 'string' || !/^\/[\w./:@-]+$/.test(cgroupsPath)) return []; // no quotes: criu.conf(5)
  if (hierarchies?.size !== 1 || !hierarchies.has('')) return [];
  return [`cgroup-root ${cgroupsPath}`];
}
