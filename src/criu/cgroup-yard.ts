import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { mountedHierarchies } from '../sys/cgroup.ts';

/**
 * CRIU mounts every cgroup hierarchy for itself, in each dump and each restore, and unmounts them again: a tenth of a
 * small container's dump, a quarter of its restore. It takes a folder instead that has them already (`--cgroup-yard`),
 * by names of its own (criu/cgroup.c): here, links to where the host has them.
 * On this thread: the folder is on a tmpfs, the container stands still meanwhile, and each trip through libuv's threads
 * takes longer than the call.
 * @param folder in one that is there: what is gone with the call that it was for is not made again
 * @returns a line for CRIU's configuration; none where the host does not have all of them
 */
export function makeCgroupYard(folder: string): string[] {
  if (!/^[\w./-]+$/.test(folder)) return []; // the configuration file has no quotes: criu.conf(5)
  const hierarchies = mountedHierarchies();
  if (hierarchies === undefined) return [];
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  for (const [controllers, place] of hierarchies) symlinkSync(place, join(folder, yardName(controllers)));
  return [`cgroup-yard ${folder}`];
}

/** `name=systemd` is `systemd` there, and v2's hierarchy `unified`. */
export function yardName(controllers: string): string {
  return controllers === '' ? 'unified' : controllers.replace(/^name=/, '');
}
