import { mkdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { mountedHierarchies } from '../sys/cgroup.ts';

/**
 * CRIU mounts every cgroup hierarchy for itself, in each dump and each restore, and unmounts them again: a tenth of a
 * small container's dump, a quarter of its restore. It takes a folder instead that has them already (`--cgroup-yard`),
 * by names of its own (criu/cgroup.c): here, links to where the host has them.
 * Not on this thread: the folder is where a client says, and its disk may not answer.
 * @param folder in one that is there: what is gone with the call that it was for is not made again
 * @returns a line for CRIU's configuration; none where the host does not have all of them
 */
export async function makeCgroupYard(folder: string): Promise<string[]> {
  if (!/^[\w./-]+$/.test(folder)) return []; // the configuration file has no quotes: criu.conf(5)
  const hierarchies = mountedHierarchies();
  if (hierarchies === undefined) return [];
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { mode: 0o700 });
  await Promise.all(
    [...hierarchies].map(([controllers, place]) => symlink(place, join(folder, yardName(controllers)))),
  );
  return [`cgroup-yard ${folder}`];
}

/** `name=systemd` is `systemd` there, and v2's hierarchy `unified`. */
export function yardName(controllers: string): string {
  return controllers === '' ? 'unified' : controllers.replace(/^name=/, '');
}
