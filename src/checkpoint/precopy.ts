// --precopy: memory is copied while the container runs, round by round, so that it stands still for the last changes alone.
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { guardImage, readImage } from '../criu/image.ts';
import { mergeParents } from '../criu/page-merge.ts';
import { NotUnderstood, PAGE } from '../criu/pagemap.ts';
import { FailedPrecondition, InvalidArgument } from '../errors.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import type { InstantResponse } from '../proto/gen/stasis/engine.ts';
import { cgroupPids, findCgroup } from '../sys/cgroup.ts';
import { size } from '../units.ts';
import type { Host } from './host.ts';
import { fitsInStaging, type Stage } from './staging.ts';
import { asCallerSees, type TakeRequest, type Taking } from './taking.ts';

/** How often memory is copied beforehand, and until when. */
export interface Precopy {
  /** At most. */
  readonly rounds: number;
  /** A round that has copied no more bytes than this is the last. */
  readonly goalBytes: number;
}

/** What was copied beforehand, for a dump to refer to. */
export interface Precopied {
  /** Image folders, the newest first. */
  readonly folders: readonly [string, ...string[]];
  /** Bytes of pages that each round has copied, the first first. */
  readonly rounds: readonly number[];
  /** The newest, relative to the dump's image folder. */
  readonly parentPath: string;
}

/** A round, the dump and the whole image that is made of all may each be as large as the memory, and have room before the round. */
const COPIES = 3;

/**
 * Before anything else is done.
 * @throws FailedPrecondition where the kernel does not say which pages have changed; InvalidArgument where no memory is wanted;
 *   Unavailable where there is no CRIU
 */
export async function assertCanPrecopy(
  host: Pick<Host, 'criu'>,
  { precopy, diskOnly }: Pick<TakeRequest, 'precopy' | 'diskOnly'>,
): Promise<void> {
  if (precopy === undefined) return;
  if (diskOnly) {
    throw new InvalidArgument('no memory is copied for a checkpoint of the disk alone', {
      reason: 'usage',
      remedy: 'leave out one of --disk-only and --precopy',
    });
  }
  if (await host.criu.has('mem_dirty_track')) return;
  throw new FailedPrecondition(
    'memory cannot be copied while a container runs: this kernel does not tell which pages have changed since (criu check --feature mem_dirty_track)',
    {
      subject: 'mem_dirty_track',
      reason: 'no-dirty-tracking',
      remedy:
        "leave out --precopy, or boot a kernel that is built with CONFIG_MEM_SOFT_DIRTY, as Debian's and Ubuntu's are",
    },
  );
}

/**
 * Whether the round that has just ended was the last: it has come to the goal, all are done, or it has not copied less than the
 * one before, so that another would not either.
 * @param copied bytes of each round so far
 */
export function isEnough(copied: readonly number[], { rounds, goalBytes }: Precopy): boolean {
  const [before, last] = [copied.at(-2), copied.at(-1)];
  if (last === undefined) return false;
  if (last <= goalBytes || copied.length >= rounds) return true;
  return before !== undefined && last >= before;
}

/**
 * Copies the memory of a container that runs, in rounds, into folders beside the stage's. Where that is not possible the dump
 * copies all, and a warning says why.
 * @returns undefined where nothing was copied
 * @throws Cancelled, DeadlineExceeded, and what the shim answers for a container that has ended
 */
export async function precopy(host: Host, taking: Taking, stage: Stage): Promise<Precopied | undefined> {
  const { request, report } = taking;
  const asked = request.precopy;
  if (asked === undefined || request.diskOnly) return undefined;
  const obstacle = await obstacleTo(host, taking, stage);
  if (obstacle !== undefined) {
    warnWithout(taking, obstacle);
    return undefined;
  }
  const folders: string[] = [];
  const copied: number[] = [];
  while (!isEnough(copied, asked)) {
    const last = copied.at(-1);
    if (last !== undefined && !(await fits(host, taking))) break;
    const told = last === undefined ? '' : ` (${size(last)} in the round before)`;
    report.phase(`copying memory while it runs, round ${copied.length + 1}${told}`);
    const folder = join(dirname(stage.workDir), `pre-${copied.length + 1}`);
    const answer = await preDump(host, taking, stage, folder, folders[0]);
    if (answer.refusal !== '') {
      // What was copied before is of use all the same.
      warnWithout(taking, answer.refusal, copied.length);
      await rm(folder, { recursive: true, force: true });
      break;
    }
    folders.unshift(folder);
    copied.push(Number(answer.pageBytes));
  }
  const [newest, ...older] = folders;
  if (newest === undefined) return undefined;
  return { folders: [newest, ...older], rounds: copied, parentPath: beside(newest) };
}

function beside(folder: string): string {
  return `../${folder.slice(folder.lastIndexOf('/') + 1)}`;
}

function warnWithout({ report }: Taking, why: string, rounds = 0): void {
  const what = rounds === 0 ? 'memory is not copied beforehand' : `memory is not copied beforehand once more`;
  report.warn(`${what}: ${why}`);
}

/** Why memory is not copied beforehand; undefined where it can be. */
async function obstacleTo(host: Host, taking: Taking, stage: Stage): Promise<string | undefined> {
  const { request, engine, task } = taking;
  if (engine === undefined || task === undefined) return 'no shim of ours holds the container';
  if (task.status !== Status.RUNNING) return 'the container does not run, so that nothing changes meanwhile';
  if (dirname(stage.imageDir) !== dirname(stage.workDir) || !(await fits(host, taking)))
    return `${host.staging} has not room for ${COPIES} times the memory`;
  const { preDumps } = await engine.calls.describe({ id: request.container });
  return preDumps
    ? undefined
    : 'the shim of the container is of an older version; it is renewed when its last container ends';
}

async function fits(host: Host, { task }: Taking): Promise<boolean> {
  const pids = task === undefined ? [] : await findCgroup(task.pid).then(cgroupPids, () => []); // it has ended
  return fitsInStaging(host.staging, pids, COPIES);
}

async function preDump(
  host: Host,
  { request, engine }: Taking,
  { workDir }: Stage,
  folder: string,
  parent: string | undefined,
): Promise<{ pageBytes: bigint; refusal: string }> {
  if (engine === undefined) throw new TypeError('a container without a shim');
  await mkdir(folder, { mode: 0o700 });
  const abort = (): void => engine.close();
  request.signal.addEventListener('abort', abort, { once: true });
  try {
    request.signal.throwIfAborted();
    return await engine.calls.preDump({
      ...{ id: request.container, imageDir: folder, workDir },
      parentPath: parent === undefined ? '' : beside(parent),
      timeoutMs: BigInt(host.config.checkpoint.timeout) * 1000n,
    });
  } catch (error) {
    request.signal.throwIfAborted();
    throw asCallerSees(error, request);
  } finally {
    request.signal.removeEventListener('abort', abort);
  }
}

/**
 * Makes the image of an instant a whole one, which nothing need know was dumped so, and removes what was copied beforehand.
 * @returns the instant with the size of that image
 * @throws FailedPrecondition where the images do not fit together: then there is no image of this instant
 */
export async function mergePrecopied(
  host: Host,
  taking: Taking,
  { imageDir }: Stage,
  precopied: Precopied | undefined,
  instant: InstantResponse,
): Promise<InstantResponse> {
  if (precopied === undefined) return instant;
  const { request, report } = taking;
  const { folders, rounds } = precopied;
  let imageBytes = instant.imageBytes;
  if (instant.parentError !== '') {
    report.warn(
      `all memory was copied while it stood still: with what was copied beforehand CRIU failed: ${instant.parentError}`,
    );
  } else if (instant.memory) {
    report.phase('putting memory together');
    try {
      await mergeParents(imageDir, folders, request.signal);
    } catch (error) {
      if (error instanceof NotUnderstood) throw notMerged(request.container, error);
      throw error;
    }
    const image = await readImage(imageDir);
    await guardImage(imageDir, image);
    imageBytes = BigInt(image.bytes);
    host.log.info('memory was copied beforehand', {
      id: request.container,
      pages: rounds.map((bytes) => bytes / PAGE).join(', '),
      image: image.bytes,
      dumped: Number(instant.imageBytes),
    });
  }
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
  return { ...instant, imageBytes };
}

function notMerged(container: string, error: NotUnderstood): FailedPrecondition {
  return new FailedPrecondition(
    `the memory of ${container} that was copied while it ran does not fit to what was dumped: ${error.message}`,
    {
      subject: container,
      reason: 'precopy-not-merged',
      cause: error,
      remedy: 'the container runs on; take the checkpoint again without --precopy',
    },
  );
}
