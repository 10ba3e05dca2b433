import { mkdir, mkdtemp, readdir, readFile, rename, rm, statfs } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { hasErrno } from '../errors.ts';
import { makeFolder } from '../sys/make-folder.ts';

/** f_type of a tmpfs: https://man7.org/linux/man-pages/man2/statfs.2.html */
const TMPFS_MAGIC = 0x01021994;
const PAGE_BYTES = 4096;
/** An image is a little larger than the memory it holds. */
const IMAGE_OVERHEAD = 1.1;
const IMAGE_BASE_BYTES = 1024 * 1024;

/**
 * Chooses where memory is dumped while a container stands still: the configured folder, else one below the
 * run-time directory, else (where that is on a disk) one in /dev/shm.
 */
export async function stagingFolder(configured: string, runDir: string): Promise<string> {
  if (configured !== '') return configured;
  await makeFolder(runDir);
  if ((await statfs(runDir)).type === TMPFS_MAGIC) return `${runDir}/staging`;
  const shared = await statfs('/dev/shm').catch(() => undefined);
  if (shared?.type !== TMPFS_MAGIC) return `${runDir}/staging`;
  return `/dev/shm/stasis-${createHash('sha256').update(runDir).digest('hex').slice(0, 12)}`;
}

/**
 * Empties the staging folder: what is in it belonged to checkpoints that were cut off. A dump that is still being written there
 * ends with an error and is undone by its shim.
 * @param kept folders of stages that are still needed
 */
export async function clearStaging(folder: string, kept: ReadonlySet<string>): Promise<void> {
  await makeFolder(folder, 0o700);
  const aside = `${folder}.old-${process.pid}`;
  await mkdir(aside, { recursive: true, mode: 0o700 });
  for (const name of await readdir(folder)) {
    if (kept.has(`${folder}/${name}`)) continue;
    await rename(`${folder}/${name}`, `${aside}/${name}`).catch((error: unknown) => {
      if (!hasErrno(error, 'ENOENT')) throw error; // its shim was undoing it
    });
  }
  await rm(aside, { recursive: true, force: true });
}

/** One dump's folders. */
export interface Stage {
  /** What holds all of it that is on the tmpfs. */
  readonly folder: string;
  readonly imageDir: string;
  readonly workDir: string;
  remove(): Promise<void>;
}

/** The shim may put something back into it in this moment, see src/criu/break-off.ts. */
const patience = { maxRetries: 10, retryDelay: 10 } as const;

/** Makes a stage: CRIU's image on the tmpfs, or in `imageParent` where the tmpfs is too small for it. */
export async function openStage(staging: string, imageParent?: string): Promise<Stage> {
  await makeFolder(staging, 0o700);
  const folder = await mkdtemp(`${staging}/dump-`);
  const imageDir = imageOfStage(imageParent ?? folder);
  const workDir = `${folder}/work`;
  await rm(imageDir, { recursive: true, force: true });
  await mkdir(imageDir, { mode: 0o700 });
  await mkdir(workDir, { mode: 0o700 });
  return { folder, imageDir, workDir, remove: () => removeStage(folder) };
}

/** Removes a stage by its folder, where it has one. */
export async function removeStage(folder: string): Promise<void> {
  if (folder === '') return;
  await rm(folder, { recursive: true, force: true, ...patience });
}

/** Where a stage has its image that is given no other place for it. */
export function imageOfStage(folder: string): string {
  return `${folder}/image`;
}

/**
 * Whether an image of these processes fits in the staging folder, with room to spare.
 * @param copies how many of them
 */
export async function fitsInStaging(staging: string, pids: readonly number[], copies = 1): Promise<boolean> {
  let pages = 0;
  for (const pid of pids) {
    const statm = await readFile(`/proc/${pid}/statm`, 'utf8').catch(() => '');
    pages += Number(statm.split(' ')[1] ?? 0);
  }
  const needed = (pages * PAGE_BYTES * IMAGE_OVERHEAD + IMAGE_BASE_BYTES) * copies;
  const { bavail, bsize } = await statfs(staging);
  return needed < bavail * bsize * 0.9;
}
