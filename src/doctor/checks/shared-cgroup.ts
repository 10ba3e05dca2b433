import { nameProcess } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** Processes that only the cgroup has in common with the container: a dump would stop them, and a restore has no place beside them. */
export const sharedCgroup: Check = (view) =>
  view.strangers
    .filter(({ parent }) => !view.strangers.some(({ pid }) => pid === parent))
    .map((process) => ({
      name: 'shared-cgroup',
      severity: 'error',
      subject: nameProcess(process),
      message:
        'is not of this container but in its cgroup: another containerd has a container of the same namespace and name perhaps, and would stand still with it',
      remedy: 'end one of the two, and start it with another name, namespace or cgroup',
    }));
