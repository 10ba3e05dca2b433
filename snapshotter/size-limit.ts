// How large a snapshot's files may become: containerd's clients say so by a label, and ZFS keeps it as `refquota`. A clone
// inherits no property of what it was cloned from, so the label is what the limit is told by wherever a dataset is made.
import { FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted } from '../src/errors.ts';
import type { CallOptions, Properties } from '../src/zfs/zfs.ts';
import { makeDataset, type Made, type Making } from './dataset.ts';
import type { Pool } from './pool.ts';
import { MAX_SIZE_LABEL, type Labels } from './snapshot.ts';

/**
 * The properties of a dataset of which labels bound the size: none where they do not.
 * @throws InvalidArgument for what is no decimal number of bytes
 */
export function sizeLimit(labels: Labels): Properties {
  const limit = labels[MAX_SIZE_LABEL];
  if (limit === undefined) return {};
  if (!/^[1-9]\d{0,18}$/.test(limit)) {
    throw new InvalidArgument(`label ${MAX_SIZE_LABEL} is ${JSON.stringify(limit)}, not a number of bytes`, {
      subject: MAX_SIZE_LABEL,
    });
  }
  return { refquota: limit };
}

/** The limit's label alone, for a snapshot that is to have room for as much. */
export function sizeLabels(labels: Labels): Labels {
  const limit = labels[MAX_SIZE_LABEL];
  return limit === undefined ? {} : { [MAX_SIZE_LABEL]: limit };
}

/**
 * What a change of labels makes of the limit; undefined where it stays as it is. No label: no limit.
 * @throws InvalidArgument for what is no decimal number of bytes
 */
export function changedLimit(before: Labels, labels: Labels): Properties | undefined {
  if (before[MAX_SIZE_LABEL] === labels[MAX_SIZE_LABEL]) return undefined;
  return { refquota: 'none', ...sizeLimit(labels) };
}

/**
 * As makeDataset, from a checkpoint's disk. ZFS lets a disk outgrow its limit by what was under way, and refuses a limit that
 * is less than what a clone holds: such a disk comes back with just the room that it takes.
 */
export async function makeFromCheckpoint(pool: Pool, making: Making, call?: CallOptions): Promise<Made> {
  try {
    return await makeDataset(pool, making, call);
  } catch (error) {
    const { origin, extra } = making;
    if (error instanceof NotFound && origin !== undefined) throw snapshotGone(origin, error);
    const limit = extra['refquota'];
    if (!(error instanceof ResourceExhausted) || origin === undefined || limit === undefined) throw error;
    const held = await heldBy(pool, origin);
    if (held === undefined || held <= BigInt(limit)) throw error;
    return makeDataset(pool, { ...making, extra: { ...extra, refquota: String(held) } }, call);
  }
}

function snapshotGone(snapshot: string, cause: unknown): NotFound {
  return new NotFound(
    `the disk of the checkpoint is gone: somebody has destroyed the ZFS snapshot ${snapshot}`,
    {
      subject: snapshot,
      reason: 'snapshot-destroyed',
      cause,
      remedy: 'remove what is left of the checkpoint: stasis rm CONTAINER CHECKPOINT',
    },
  );
}

/**
 * As makeDataset, from a layer or from nothing.
 * @throws FailedPrecondition for a limit that is below what the image's files take
 */
export async function makeLimited(pool: Pool, making: Making, call?: CallOptions): Promise<Made> {
  try {
    return await makeDataset(pool, making, call);
  } catch (error) {
    const { origin, extra } = making;
    const limit = extra['refquota'];
    if (!(error instanceof ResourceExhausted) || origin === undefined || limit === undefined) throw error;
    const held = await heldBy(pool, origin).catch(() => undefined);
    if (held === undefined || held <= BigInt(limit)) throw error;
    throw new FailedPrecondition(
      `label ${MAX_SIZE_LABEL} is ${limit}, and the files of the image take ${held} bytes already`,
      {
        subject: MAX_SIZE_LABEL,
        reason: 'limit-too-low',
        remedy: "give a limit that has room for the image's files and the container's",
        cause: error,
      },
    );
  }
}

/** Bytes that a ZFS snapshot refers to. */
async function heldBy(pool: Pool, snapshot: string): Promise<bigint | undefined> {
  const [row] = await pool.zfs.list({
    root: snapshot,
    depth: 0,
    types: ['snapshot'],
    properties: ['referenced'],
  });
  const held = row?.properties.get('referenced')?.value;
  return held === undefined ? undefined : BigInt(held);
}
