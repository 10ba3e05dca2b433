// What a shim's worker has asked ZFS for as it was ended may be done after its end: zfs-fuse's daemon does not ask who waits for it.
import { setTimeout as sleep } from 'node:timers/promises';
import { Code, codeOf } from '../errors.ts';
import { properties } from './entry.ts';
import type { Host } from './host.ts';

/** Milliseconds before each look. What comes later is destroyed at the next start of stasisd, as any half is. */
const LOOKS = [300, 1000, 3000];

/** The disk half of a checkpoint that failed. */
export interface LateHalf {
  readonly snapshot: string;
  /** Of the checkpoint: another one of its name may be taken meanwhile. */
  readonly id: string;
  /** Lock of its container. */
  readonly key: string;
}

/** Destroys the half if it comes to be. */
export async function destroyLateHalf(
  host: Pick<Host, 'locks' | 'zfs'>,
  { snapshot, id, key }: LateHalf,
  looks: readonly number[] = LOOKS,
): Promise<void> {
  for (const ms of looks) {
    await sleep(ms);
    const isDone = await host.locks.run(key, async () => {
      if ((await idOf(host, snapshot)) !== id) return false;
      await host.zfs.destroyIdempotent(snapshot);
      return true;
    });
    if (isDone) return;
  }
}

async function idOf({ zfs }: Pick<Host, 'zfs'>, snapshot: string): Promise<string | undefined> {
  try {
    const [row] = await zfs.list({
      root: snapshot,
      depth: 0,
      types: ['snapshot'],
      properties: [properties.checkpoint],
    });
    return row?.properties.get(properties.checkpoint)?.value;
  } catch (error) {
    if (codeOf(error) === Code.NotFound) return undefined;
    throw error;
  }
}
