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
    if (!descriptor.target.startsWith('/') || descriptor.target.startsWith('/memfd:')) continue;
    const mount = descriptorField(view, descriptor.path, 'mnt_id');
    if (mount === undefined || inside.has(mount) || isNull(view.proc.stat(descriptor.path))) continue;
    if (hasMount(view.proc.read(`/proc/${process.pid}/mountinfo`), mount)) continue; // in a namespace of its own
    const stream = ['input', 'output', 'errors'][descriptor.number];
    found.push({
      name: 'foreign-file',
      severity: 'error' as const,
      subject,
      message:
        `${descriptor.target}, a file from outside the container` +
        (stream === undefined ? '' : ` as its standard ${stream}`),
      remedy:
        stream === undefined
          ? 'give the container the file by a bind mount instead of an open descriptor'
          : 'start it with pipes, a terminal or no standard streams',
    });
  }
  return found;
};

/** Both OCI runtimes put the container's own null device in the place of the host's. */
function isNull(facts: { kind: string; major: number; minor: number } | undefined): boolean {
  return facts?.kind === 'character-device' && facts.major === 1 && facts.minor === 3;
}

function hasMount(mountinfo: string, id: string): boolean {
  return mountinfo.startsWith(`${id} `) || mountinfo.includes(`\n${id} `);
}
