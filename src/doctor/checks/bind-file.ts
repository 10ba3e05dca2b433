import { descriptorField, eachDescriptor, mountOf } from '../container-view.ts';
import type { Check, Obstacle } from '../obstacle.ts';
import { hostFolders } from './bind-mount.ts';

/** Of an open file's flags: open(2). No stat here, which would wait for a server that does not answer. */
const [O_APPEND, O_DIRECTORY] = [0o2000, process.arch === 'arm64' ? 0o40000 : 0o200000];

/**
 * Files on folders of the host that are open otherwise than for appending. CRIU opens such a file again only where it has the
 * size that it had at the checkpoint (criu/files-reg.c), and what is on the host goes on changing.
 */
export const bindFile: Check = (view) => {
  const folders = new Set(hostFolders(view).map(({ destination }) => destination));
  if (folders.size === 0) return [];
  const found = new Map<string, Obstacle>(); // each file once
  for (const { descriptor, subject } of eachDescriptor(view)) {
    const { target, path } = descriptor;
    if (!target.startsWith('/') || !folders.has(mountOf(view, target)?.target ?? '')) continue;
    const flags = parseInt(descriptorField(view, path, 'flags') ?? '0', 8);
    if ((flags & (O_APPEND | O_DIRECTORY)) !== 0) continue;
    found.set(target, {
      name: 'bind-file',
      severity: 'warning',
      subject,
      message: `${target} is open on a folder of the host: restores and clones fail where it has another size by then`,
      remedy: 'open it for appending (>> in a shell), or keep it in the root file system of the container',
    });
  }
  return [...found.values()];
};
