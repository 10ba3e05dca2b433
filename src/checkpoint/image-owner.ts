import { chmod, chown, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { OciSpec } from './spec.ts';

interface IdRange {
  readonly containerID?: number;
  readonly hostID?: number;
  readonly size?: number;
}

/** The host's id of a user namespace's root; undefined without such a namespace, or where root is not mapped. */
function rootOf(mappings: unknown): number | undefined {
  if (!Array.isArray(mappings)) return undefined;
  const range = (mappings as IdRange[]).find(({ containerID, size = 0 }) => containerID === 0 && size > 0);
  return range?.hostID;
}

/** The host's ids of the root of a container's user namespace; undefined where it has none. */
export function innerRoot(spec: OciSpec): { uid: number; gid: number } | undefined {
  const uid = rootOf(spec.linux?.['uidMappings']);
  const gid = rootOf(spec.linux?.['gidMappings']);
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}

const ROOT_GROUP = 0;

/**
 * Makes an image readable for the container that is restored from it. CRIU opens most of it from within the container's
 * user namespace, where the host's root is nobody: first with the host's ids, which the group is for, and then as the
 * namespace's root, who becomes the owner. Nobody else who has that id comes near: the folder lies in one of root's.
 */
export async function giveImage(imageDir: string, spec: OciSpec): Promise<void> {
  const root = innerRoot(spec);
  if (root === undefined || root.uid === 0) return;
  const give = async (path: string, mode: number): Promise<void> => {
    await chown(path, root.uid, ROOT_GROUP);
    await chmod(path, mode);
  };
  for (const name of await readdir(imageDir)) await give(join(imageDir, name), 0o640);
  await give(imageDir, 0o750);
}
