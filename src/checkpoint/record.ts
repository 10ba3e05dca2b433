import { readFile, writeFile } from 'node:fs/promises';
import { Internal, messageOf } from '../errors.ts';
import { Container } from '../proto/gen/containerd/containers.ts';

/** How a container's snapshot was made, as far as another like it is made. */
export interface SnapshotOrigin {
  /** Name of the parent snapshot in containerd; empty for a disk without one. */
  readonly parent: string;
  /** The labels by which its files appear under other ids, and of its size limit; undefined in records of before there were any. */
  readonly mapping?: Readonly<Record<string, string>>;
}

/** What a checkpoint keeps of its container, so that it can be brought back after `ctr containers rm`. */
export interface CheckpointRecord extends SnapshotOrigin {
  readonly version: 1;
  readonly id: string;
  /** containerd's own record: spec, labels, image, runtime and its options. */
  readonly container: Container;
  readonly terminal: boolean;
}

/** The record's file in the memory dataset. It holds the spec, and specs hold secrets: 0600, and never a ZFS property. */
export const recordFile = 'record.json';

/** The folder of CRIU's image files in the memory dataset. */
export const imageFolder = 'image';

/** The writable layer of a container that is not on our snapshotter. */
export const diffFile = 'rootfs-diff.tar';

export async function writeRecord(folder: string, record: CheckpointRecord): Promise<void> {
  await writeFile(`${folder}/${recordFile}`, recordText(record), { mode: 0o600 });
}

/** A record as it is written. */
export function recordText({ container, ...rest }: CheckpointRecord): string {
  return JSON.stringify({
    ...rest,
    container: Buffer.from(Container.encode(container).finish()).toString('base64'),
  });
}

/** @throws Internal where the file is missing or not ours */
export async function readRecord(folder: string): Promise<CheckpointRecord> {
  const path = `${folder}/${recordFile}`;
  try {
    const data = JSON.parse(await readFile(path, 'utf8')) as Omit<CheckpointRecord, 'container'> & {
      container: string;
    };
    if (data.version !== 1) throw new Error(`version ${String(data.version)} is not known here`);
    return { ...data, container: Container.decode(Buffer.from(data.container, 'base64')) };
  } catch (error) {
    throw new Internal(`the checkpoint's record cannot be read: ${messageOf(error)}`, {
      subject: path,
      cause: error,
      reason: 'bad-record',
      remedy: 'the pool may be damaged: look at zpool status',
    });
  }
}
