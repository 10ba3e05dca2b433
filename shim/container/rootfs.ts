import { existsSync } from 'node:fs';
import { lstat, mkdir, readdir, realpath, rmdir, unlink } from 'node:fs/promises';
import { join, normalize } from 'node:path';
import { FailedPrecondition, hasErrno, InvalidArgument, messageOf } from '../../src/errors.ts';
import { isMountPoint, unmount, type Mount } from '../../src/sys/mount.ts';
import { mountAsAsked } from '../../src/sys/mount-mapped.ts';
import { readMountTable } from '../../src/sys/mount-table.ts';
import { onDisk } from '../../src/sys/thread-pool.ts';

/**
 * Mounts a container's root file system, in order, each at its own target below `rootfs`. All or none.
 * @throws FailedPrecondition naming the mount; InvalidArgument for a target outside
 */
export async function mountRootfs(mounts: readonly Mount[], rootfs: string): Promise<void> {
  if (mounts.length === 0) return;
  if (!existsSync(rootfs)) await mkdir(rootfs, { mode: 0o711 }); // containerd makes it
  const done: string[] = [];
  let committed = false;
  try {
    for (const entry of mounts) {
      const target = await targetOf(entry, rootfs);
      try {
        await mountAsAsked({ ...entry, target });
      } catch (error) {
        throw new FailedPrecondition(`failed to mount rootfs component: ${messageOf(error)}`, {
          subject: entry.source,
          cause: error,
          remedy: `check that ${entry.source} exists and that the kernel knows the file system ${entry.type}`,
        });
      }
      done.push(target);
    }
    committed = true;
  } finally {
    if (!committed) for (const target of done.reverse()) await unmount(target, { detach: true });
  }
}

/** Unmounts everything at and below `rootfs`, topmost first. Nothing mounted there is no error. */
export async function unmountRootfs(rootfs: string): Promise<void> {
  let wasMounted = false;
  try {
    // Each call takes the topmost of those at this very place. The table of mounts is long on a busy host, and read only in need.
    do {
      await unmount(rootfs);
      wasMounted = true;
    } while (isMountPoint(rootfs));
    return;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || (wasMounted && hasErrno(error, 'EINVAL'))) return;
    if (!hasErrno(error, 'EBUSY') && !hasErrno(error, 'EINVAL')) throw error;
  }
  // What was mounted inside, by us or meanwhile.
  await unmountBelow(rootfs);
}

/**
 * Takes away what a runtime has made in a root file system's folder when that was not mounted, as one does that goes on after its
 * caller was killed: empty folders and files to mount on. containerd removes the folder only when it is empty, and makes no
 * other task of that name until then. What holds anything, or is on another file system, stays, and so does all of a folder that
 * was the root file system itself.
 * @param mounts what the root file system was made of
 */
export async function removeMountPoints(rootfs: string, mounts: readonly Mount[]): Promise<void> {
  if (!mounts.some(({ target }) => target === '') || isMountPoint(rootfs)) return;
  const folder = await lstat(rootfs).catch(() => undefined);
  // A deletion does not fail for what is left: containerd says so when it comes to the bundle.
  if (folder?.isDirectory() === true) await removeEmpty(rootfs, folder.dev).catch(() => undefined);
}

async function removeEmpty(folder: string, dev: number): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const found = await lstat(path);
    if (found.dev !== dev) continue;
    if (found.isDirectory()) {
      await removeEmpty(path, dev);
      await rmdir(path).catch(() => undefined); // something is in it
    } else if (found.isFile() && found.size === 0) {
      await unlink(path);
    }
  }
}

/** Detaches every mount at and below a folder, topmost first. */
export async function unmountBelow(folder: string): Promise<void> {
  for (const { target } of (await readMountTable()).reverse()) {
    if (target === folder || target.startsWith(`${folder}/`)) await unmount(target, { detach: true });
  }
}

/** A link in the image must not lead it out either: mount(2) follows them. */
async function targetOf(entry: Mount, rootfs: string): Promise<string> {
  const target = normalize(join(rootfs, entry.target));
  if (target === rootfs) return target;
  // What was mounted before it may be on a disk that does not answer.
  const [real, root] = await Promise.all([
    onDisk(() => realpath(target)).catch(() => target),
    onDisk(() => realpath(rootfs)),
  ]);
  if (!target.startsWith(`${rootfs}/`) || !(real === target || real.startsWith(`${root}/`))) {
    throw new InvalidArgument(`mount target ${entry.target} is outside of the root file system`, {
      subject: entry.target,
    });
  }
  return target;
}
