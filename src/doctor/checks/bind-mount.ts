import type { ContainerView } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** What every engine binds into its containers, and writes anew for each: nothing is lost with them. */
const usual =
  /^\/etc\/(?:resolv\.conf|hosts|hostname)$|^\/dev\/(?:shm|termination-log)$|^\/run\/\.containerenv$/;

/** Mounts of the container's spec that are a folder or file of the host, and that no engine makes for each container. */
export function hostFolders({
  spec,
}: Pick<ContainerView, 'spec'>): { source: string; destination: string }[] {
  return (spec.mounts ?? []).flatMap(({ type, options, destination = '', source }) => {
    const bind = type === 'bind' || options?.some((option) => option === 'bind' || option === 'rbind');
    return bind === true && source !== undefined && !usual.test(destination) ? [{ source, destination }] : [];
  });
}

/** Folders of the host in the container: their content is of no instant. */
export const bindMount: Check = (view) =>
  hostFolders(view).map(({ destination, source }) => ({
    name: 'bind-mount',
    severity: 'warning',
    subject: `mount ${destination}`,
    message: `is ${source} of the host: what is in it is not in the checkpoint, and a restore finds it as it is then`,
    remedy: 'keep what has to go back with the container in its root file system',
  }));
