import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { hasErrno } from '../errors.ts';

/**
 * Makes a folder and those above it that are missing; one that is there is no error. For paths that a user names: Node's own
 * recursive mkdir never ends, on a thread that nothing can stop, where mkdir(2) answers ENOENT below a folder that is there,
 * as /proc does.
 * @throws Node's errors: ENOENT, ENOTDIR, EEXIST where a file is in its place, EACCES, EROFS
 */
export async function makeFolder(path: string, mode = 0o777): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (hasErrno(error, 'EEXIST') && (await isFolder(path))) return;
    const above = dirname(path);
    if (!hasErrno(error, 'ENOENT') || above === path) throw error;
    // What is above may have been made by somebody else since.
    if (!(await isFolder(above))) await makeFolder(above, mode);
    await mkdir(path, { mode }).catch(async (again: unknown) => {
      // Somebody else made it in between.
      if (!hasErrno(again, 'EEXIST') || !(await isFolder(path))) throw again;
    });
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}
