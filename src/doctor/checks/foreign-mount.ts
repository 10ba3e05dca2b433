import type { Check } from '../obstacle.ts';

/** File systems with a device or a server behind them, that CRIU cannot mount again: criu/filesystems.c knows the others. */
const unknown =
  /^(?:fuse(?:\..*|blk)?|nfs4?|cifs|smb3|9p|ceph|virtiofs|ext[234]|xfs|btrfs|f2fs|zfs|squashfs|erofs|vfat|iso9660)$/;

/**
 * Mounts that the container seems to have made itself, of file systems that a restore cannot bring back. A mount of its spec
 * may also look so, where its destination is a symbolic link: hence a warning, and CRIU has the last word.
 */
export const foreignMount: Check = (view) => {
  const root = view.mounts.find(({ target }) => target === '/');
  const given = (view.spec.mounts ?? []).map(({ destination = '' }) => destination);
  return view.mounts
    .filter(
      ({ type, target, device }) =>
        unknown.test(type) &&
        device !== root?.device &&
        !given.some((destination) => target === destination || target.startsWith(`${destination}/`)) &&
        !target.startsWith('/dev/') &&
        !/^\/(?:etc|proc|sys)\//.test(target),
    )
    .map(({ type, target }) => ({
      name: 'foreign-mount',
      severity: 'warning',
      subject: `mount ${target}`,
      message: `a file system of type ${type} that was mounted inside the container, which CRIU cannot dump`,
      remedy: 'have the container started with it as a mount of its own, or unmount it before a checkpoint',
    }));
};
