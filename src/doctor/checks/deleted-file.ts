import { eachDescriptor, mountOf, nameProcess } from '../container-view.ts';
import type { Check, Obstacle } from '../obstacle.ts';

const DELETED = ' (deleted)';

/**
 * Files that are open, or mapped, and have lost the name they were opened by. CRIU keeps their content in the image; it
 * cannot where another name of theirs is left, nor on zfs-fuse, which opens no file without a name a second time.
 */
export const deletedFile: Check = (view) => {
  const found: Obstacle[] = [];
  const seen = new Set<string>();
  const look = (target: string, path: string, subject: string): void => {
    const name = target.slice(0, -DELETED.length);
    if (!target.endsWith(DELETED) || isMemory(name) || seen.has(`${subject} ${name}`)) return;
    seen.add(`${subject} ${name}`);
    // No stat on FUSE: it would wait for its daemon, and changes nothing.
    const fuse = mountOf(view, name)?.type.startsWith('fuse') === true;
    if (!fuse && (view.proc.stat(path)?.links ?? 0) === 0) return;
    found.push({
      name: 'deleted-file',
      severity: 'error',
      subject,
      ...(fuse ? onFuse(name) : elsewhere(name)),
    });
  };
  for (const { descriptor, subject } of eachDescriptor(view))
    look(descriptor.target, descriptor.path, subject);
  for (const process of view.processes) {
    for (const { range, target } of deletedMappings(view.proc.read(`/proc/${process.pid}/maps`))) {
      look(target, `/proc/${process.pid}/map_files/${range}`, `${nameProcess(process)}, mapped memory`);
    }
  }
  return found;
};

function elsewhere(name: string): Pick<Obstacle, 'message' | 'remedy'> {
  return {
    message: `${name} was opened by a name that has been removed, while the file has another one`,
    remedy: 'have the program open it again, or restart it',
  };
}

function onFuse(name: string): Pick<Obstacle, 'message' | 'remedy'> {
  return {
    message: `${name} has been removed while it is open, and zfs-fuse cannot open it again`,
    remedy: 'restart the program, keep such files on a tmpfs, or use the OpenZFS kernel module',
  };
}

/** Nameless memory that looks like a file in /proc. */
function isMemory(name: string): boolean {
  return /^\/(?:memfd:|dev\/zero|SYSV|\[aio\]|anon_hugepage)/.test(name);
}

/** The pure part: lines of /proc/PID/maps whose file is gone; proc_pid_maps(5). */
export function deletedMappings(maps: string): { range: string; target: string }[] {
  return maps.split('\n').flatMap((line) => {
    const [, range, target] = /^(\S+) (?:\S+ +){4}(\/.*)$/.exec(line) ?? [];
    return range === undefined || target?.endsWith(DELETED) !== true ? [] : [{ range, target }];
  });
}
