// A copy of a container's memory that is made while it runs: the shim's part of --precopy.
import { guardImage, prepareImage, readImage } from '../criu/image.ts';
import { isOciError } from '../oci/error.ts';
import type { PreDumpResponse } from '../proto/gen/stasis/engine.ts';
import { freezerOf } from '../sys/cgroup-freezer.ts';
import { DumpFailure, endedInTime } from './ending.ts';
import type { InstantTarget, InstantTools } from './instant-plan.ts';

export interface PreDumpFolders {
  /** Empty. */
  readonly imageDir: string;
  /** Where CRIU writes its log. */
  readonly workDir: string;
  /** Of the pre-dump before, relative to `imageDir`. */
  readonly parentPath?: string;
}

/**
 * Copies what has changed since the pre-dump before, or all. The container runs on, but for the moment in which CRIU takes hold
 * of its pages; it is not frozen by its cgroup, so nothing is to be thawed after a CRIU that was killed.
 * @returns a refusal where this container, or its state, allows none, or CRIU failed: then the image folder is empty
 * @throws Cancelled; DeadlineExceeded; FailedPrecondition where the container ended
 */
export async function preDump(
  target: InstantTarget,
  folders: PreDumpFolders,
  tools: Pick<InstantTools, 'isDying' | 'freezer'>,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
): Promise<PreDumpResponse> {
  const { imageDir } = folders;
  await prepareImage(imageDir, false);
  if (await (tools.freezer ?? freezerOf(target.cgroup)).isFrozen())
    return refused('it is paused, so that nothing changes meanwhile');
  const call = { what: 'pre-dump', log: 'pre-dump.log', ...folders, timeoutMs, signal };
  try {
    await endedInTime(target, call, tools, async (limits) => {
      try {
        await target.runtime.preDump({ ...folders, ...limits, id: target.id });
      } catch (error) {
        // Nothing has run, so there is no log of it, but maybe one of the round before.
        throw isOciError(error, 'unsupported') ? new Unsupported(error.said) : error;
      }
    });
  } catch (error) {
    if (!(error instanceof DumpFailure)) throw error;
    return refused(error.cause instanceof Unsupported ? error.cause.message : error.message);
  }
  const image = await readImage(imageDir);
  await guardImage(imageDir, image);
  const pages = image.files.filter(({ name }) => /^pages-.*\.img$/.test(name));
  return { pageBytes: BigInt(pages.reduce((sum, { size }) => sum + size, 0)), refusal: '' };
}

class Unsupported extends Error {}

function refused(refusal: string): PreDumpResponse {
  return { pageBytes: 0n, refusal };
}
