import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Where crun's `checkpoint` says that masked folders come from, whatever `--root` is. */
const DUMPED_FROM = '/run/crun/.empty-directory';

/**
 * A CRIU configuration with which crun restores a container that has masked folders (every container with the usual
 * `maskedPaths`) although its state folder is not the default one. crun 1.24 to 1.29 binds one empty folder below `--root`
 * over them, names it to CRIU by its default place at the dump and by its real one at the restore, and CRIU then has "no
 * mapping" for it. Written into the work folder; further options are taken over from `criuConfig`.
 */
export async function maskedFoldersConfig(
  root: string,
  { workDir, criuConfig }: { workDir: string; criuConfig?: string | undefined },
): Promise<string> {
  const empty = join(root, '.empty-directory');
  await mkdir(empty, { recursive: true, mode: 0o755 });
  const further = criuConfig === undefined ? '' : await readFile(criuConfig, 'utf8');
  const file = join(workDir, 'criu-restore.conf');
  await writeFile(file, `${further}external mnt[${DUMPED_FROM}]:${empty}\n`, { mode: 0o600 });
  return file;
}
