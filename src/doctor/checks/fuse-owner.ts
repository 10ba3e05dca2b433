import { descriptorField, eachDescriptor, mountOf } from '../container-view.ts';
import type { Check, Obstacle } from '../obstacle.ts';

/** Access modes in the flags of an open file: open(2). */
const ACCESS = 0o3;
const READ_ONLY = 0;

/**
 * In a user namespace on zfs-fuse: a file that a process of another user than the namespace's root writes to. CRIU opens it
 * again as that root, who may open everything for the kernel, but is an ordinary user for the daemon.
 */
export const fuseOwner: Check = (view) => {
  const [, root] = /^\s*0\s+(\d+)/.exec(view.proc.read(`/proc/${view.init}/uid_map`)) ?? [];
  if (root === undefined || root === '0') return []; // no user namespace
  const users = new Map(
    view.processes.map(({ pid }) => [
      pid,
      /^Uid:(?:\s+\d+){3}\s+(\d+)/m.exec(view.proc.read(`/proc/${pid}/status`))?.[1] ?? root,
    ]),
  );
  const found = new Map<number, Obstacle>(); // one a process is enough
  for (const { process, descriptor, subject } of eachDescriptor(view)) {
    if (users.get(process.pid) === root || found.has(process.pid) || !descriptor.target.startsWith('/'))
      continue;
    // No stat on FUSE: it would wait for its daemon.
    if (mountOf(view, descriptor.target)?.type.startsWith('fuse') !== true) continue;
    const flags = parseInt(descriptorField(view, descriptor.path, 'flags') ?? '0', 8);
    if ((flags & ACCESS) === READ_ONLY) continue;
    found.set(process.pid, {
      name: 'fuse-owner',
      severity: 'error',
      subject,
      message: `${descriptor.target} is written to by another user than the user namespace's root, as whom CRIU would have to open it again, and zfs-fuse would not let it`,
      remedy:
        'keep such files on a tmpfs, run the container without a user namespace, or use the OpenZFS kernel module',
    });
  }
  return [...found.values()];
};
