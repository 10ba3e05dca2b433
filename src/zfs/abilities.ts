import type { Zfs } from './zfs.ts';

/**
 * Whether a mount can show its files under other ids, which containerd is told in its configuration, before anything is
 * mounted: OpenZFS's module since 2.2, on Linux since 5.12 (mount_setattr(2)). zfs-fuse never says so to the kernel.
 * @param kernel its release, such as `6.12.35+deb13-amd64`
 */
export function mapsIds({ kind, version }: Pick<Zfs, 'kind' | 'version'>, kernel: string): boolean {
  return kind === 'openzfs' && isFrom(version, 2, 2) && isFrom(kernel, 5, 12);
}

function isFrom(version: string, major: number, minor: number): boolean {
  const [first = 0, second = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  return first > major || (first === major && second >= minor);
}
