// Mounts whose source is still being made.
import { access } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { FailedPrecondition } from '../errors.ts';
import type { Mount } from './mount.ts';

/**
 * Option of a mount of ours that a restore needs no sooner than at Start: its source is being made as long as the file is
 * there that it names. As an option of user space (mount(8)) it is nothing to the kernel, and other shims do not see it.
 */
const option = 'x-stasis.made-with=';

/** How often one looks; nothing tells of a mount that appears. */
const POLL_MS = 2;
const TIMEOUT_MS = 60_000;

/** The options of a mount that may be made before its source is. @param marker file that is there until then */
export function lateOptions(options: readonly string[], marker: string): string[] {
  return [...options, `${option}${marker}`];
}

/** Its marker; undefined for a usual mount. */
export function markerOf({ options }: Mount): string | undefined {
  return options.find((one) => one.startsWith(option))?.slice(option.length);
}

/** The mount as the kernel is to see it. */
export function withoutMarker(mount: Mount): Mount {
  return { ...mount, options: mount.options.filter((one) => !one.startsWith(option)) };
}

/**
 * Waits until the sources of late mounts are there.
 * @throws FailedPrecondition when a marker has gone and its source is not there, or after a minute
 */
export async function sourcesMade(mounts: readonly Mount[]): Promise<void> {
  const deadline = performance.now() + TIMEOUT_MS;
  for (const mount of mounts) {
    const marker = markerOf(mount);
    if (marker === undefined) continue;
    while (!(await exists(mount.source))) {
      // In this order: the source is there before its marker goes.
      if (performance.now() > deadline || (!(await exists(marker)) && !(await exists(mount.source)))) {
        throw new FailedPrecondition(`the disk at ${mount.source} was not made`, { subject: mount.source });
      }
      await sleep(POLL_MS);
    }
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
