import { FailedPrecondition } from '../errors.ts';
import { firstUnmounted } from '../sys/cgroup.ts';

/** The hierarchy that decides where crun restores, where it is not mounted; undefined where it is. */
export type FindUnmounted = () => string | undefined;

const decidingHierarchy: FindUnmounted = () => firstUnmounted('memory');

/**
 * Refuses a restore by crun that would end in the root cgroup. On cgroup v1 crun (1.24 to 1.29) has CRIU restore into the
 * path that its helper process has in the first hierarchy of /proc/PID/cgroup that is not `memory`
 * (libcrun/cgroup-utils.c); the helper has joined those alone that are mounted, and is in the root of the others.
 * @throws FailedPrecondition naming the hierarchy
 */
export function assertOwnCgroup(id: string, find: FindUnmounted = decidingHierarchy): void {
  const unmounted = find();
  if (unmounted === undefined) return;
  const where = `/sys/fs/cgroup/${unmounted.replace(/^name=/, '')}`;
  const option = unmounted.startsWith('name=') ? `none,${unmounted}` : unmounted;
  throw new FailedPrecondition(
    `crun would restore ${id} into the host's root cgroup: the cgroup hierarchy ${unmounted} is mounted nowhere`,
    {
      subject: id,
      remedy: `mount it: mkdir -p ${where} && mount -t cgroup -o ${option} cgroup ${where}; or use runc`,
    },
  );
}
