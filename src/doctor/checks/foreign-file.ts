import { descriptorField, eachDescriptor } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/**
 * Open files of a file system that is not mounted in the container: mostly a file of the host as standard stream. CRIU
 * says `Can't lookup mount`.
 */
export const foreignFile: Check = (view) => {
  const inside = new Set(view.mounts.map(({ id }) => String(id)));
  const found = [];
  for (const { process, descriptor, subject } of eachDescriptor(view)) {
    if (!isFile(descriptor.target)) continue;
    const mount = descriptorField(view, descriptor.path, 'mnt_id');
    if (mount === undefined || inside.has(mount)) continue;
    // By now the number may stand for another file than when it was listed.
    const opened = view.proc.opened(descriptor.path);
    if (opened === undefined || !isFile(opened.target) || inside.has(opened.mount)) continue;
    if (hasMount(view.proc.read(`/proc/${process.pid}/mountinfo`), opened.mount)) continue; // in a namespace of its own
    const stream = ['input', 'output', 'errors'][descriptor.number];
    found.push({
      name: 'foreign-file',
      severity: 'error' as const,
      subject,
      message:
        `${opened.target}, a file from outside the container` +
        (stream === undefined ? '' : ` as its standard ${stream}`),
      remedy:
        stream === undefined
          ? 'give the container the file by a bind mount instead of an open descriptor'
          : 'start it with pipes, a terminal or no standard streams',
    });
  }
  return found;
};

function isFile(target: string): boolean {
  return target.startsWith('/') && !target.startsWith('/memfd:');
}

function hasMount(mountinfo: string, id: string): boolean {
  return mountinfo.startsWith(`${id} `) || mountinfo.includes(`\n${id} `);
}
