import type { Check } from '../obstacle.ts';

/** What every engine binds into its containers, and writes anew for each: nothing is lost with them. */
const usual =
  /^\/etc\/(?:resolv\.conf|hosts|hostname)$|^\/dev\/(?:shm|termination-log)$|^\/run\/\.containerenv$/;

/** Folders of the host in the container: their content is of no instant. */
export const bindMount: Check = (view) =>
  (view.spec.mounts ?? [])
    .filter(({ type, options, destination, source }) => {
      const bind = type === 'bind' || options?.some((option) => option === 'bind' || option === 'rbind');
      return bind === true && source !== undefined && !usual.test(destination ?? '');
    })
    .map(({ destination = '', source = '' }) => ({
      name: 'bind-mount',
      severity: 'warning',
      subject: `mount ${destination}`,
      message: `is ${source} of the host: what is in it is not in the checkpoint, and a restore finds it as it is then`,
      remedy: 'keep what has to go back with the container in its root file system',
    }));
