// What a rewind that failed, or was cancelled, puts in the place of the task that it stopped.
import { findTask } from '../../containerd/client.ts';
import type { Container } from '../../proto/gen/containerd/containers.ts';
import { type Process, Status } from '../../proto/gen/containerd/task_types.ts';
import type { Host } from '../host.ts';
import { isRemoved } from '../removed.ts';
import { ioOf, startTask } from '../start.ts';
import { removeTask } from '../task.ts';

/** A task that a rewind was about to stop, or has stopped. */
export interface FormerTask {
  readonly namespace: string;
  readonly record: Container;
  readonly task: Process | undefined;
}

/**
 * Starts the task that was stopped, from its image where there is one, and pauses it where it was paused (no OCI runtime restores
 * into a pause, so it runs for a moment). May be called again after it failed.
 *
 * Who has an image has ended the task with it. containerd may call such a task running for a while yet, until its shim has
 * seen the end; without an image only containerd knows whether it came to an end.
 */
export async function bringBack(
  host: Pick<Host, 'containerd'>,
  { namespace, record, task }: FormerTask,
  image: string | undefined,
): Promise<void> {
  const client = host.containerd.namespace(namespace);
  // Its client has no use for it any more. A task that is there all the same is for the caller.
  if (await isRemoved(client, record)) return;
  if (image === undefined) {
    const now = await findTask(client, record.id);
    // It was not stopped after all, as the way to it was lost before.
    if (now !== undefined && now.pid === task?.pid && now.status !== Status.STOPPED) return;
  }
  await removeTask(host, namespace, record.id);
  const { mounts } = await client.snapshots.mounts({
    snapshotter: record.snapshotter,
    key: record.snapshotKey,
  });
  await startTask(client, record, {
    mounts,
    io: await ioOf(task, task?.terminal ?? false),
    imageDir: image,
  });
  if (task?.status === Status.PAUSED) await client.tasks.pause({ containerId: record.id });
}
