import { type ContainerView, descriptorField, eachDescriptor, inodeOf } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

const ACCESS = 0o3; // O_RDONLY 0, O_WRONLY 1, O_RDWR 2: open(2)

/**
 * Pipes with one end in the container and the other in the host. Its standard streams are connected anew by a restore,
 * whatever number they have just then (a shell puts one aside while it redirects it): their other end is its shim's.
 */
export const pipePeer: Check = (view) => {
  const single = singleEnded(view);
  if (single.size === 0) return [];
  const shim = view.processes.find(({ pid }) => pid === view.init)?.parent;
  const outside = heldOutside(view, new Set(single.keys()));
  return [...single]
    .filter(([inode]) => outside.has(inode) && outside.get(inode) !== shim)
    .map(([inode, subject]) => ({
      name: 'pipe-peer',
      severity: 'warning',
      subject,
      message: `a pipe to process ${outside.get(inode) ?? 0} outside the container: after a restore nobody is at its other end`,
      remedy: 'talk to the container by its standard streams or by a socket',
    }));
};

function singleEnded(view: ContainerView): Map<string, string> {
  const ends = new Map<string, { subject: string; modes: Set<number> }>();
  const streams = new Set<string>();
  for (const { process, descriptor, subject } of eachDescriptor(view)) {
    const inode = inodeOf(descriptor, 'pipe');
    if (inode === undefined) continue;
    if (process.pid === view.init && descriptor.number <= 2) streams.add(inode);
    const known = ends.get(inode) ?? { subject, modes: new Set() };
    known.modes.add(parseInt(descriptorField(view, descriptor.path, 'flags') ?? '2', 8) & ACCESS);
    ends.set(inode, known);
  }
  const single = new Map<string, string>();
  for (const [inode, { subject, modes }] of ends) {
    if (!streams.has(inode) && modes.size === 1 && !modes.has(2)) single.set(inode, subject);
  }
  return single;
}

/** Which other process has each of the pipes; looks through the whole host, so only where there is something to look for. */
function heldOutside(view: ContainerView, inodes: ReadonlySet<string>): Map<string, number> {
  const inside = new Set(view.pids);
  const found = new Map<string, number>();
  for (const pid of view.proc.list('/proc')) {
    if (!/^\d+$/.test(pid) || inside.has(Number(pid))) continue;
    for (const number of view.proc.list(`/proc/${pid}/fd`)) {
      const target = view.proc.link(`/proc/${pid}/fd/${number}`);
      if (!target.startsWith('pipe:[')) continue;
      const inode = target.slice('pipe:['.length, -1);
      if (inodes.has(inode)) found.set(inode, Number(pid));
    }
  }
  return found;
}
