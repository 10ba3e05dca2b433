// A container that a client of containerd removes while something is being done to it.
import { findContainer, type NamespaceClient } from '../containerd/client.ts';
import { AlreadyExists, FailedPrecondition } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { Host } from './host.ts';
import { removeTask } from './task.ts';

/** Whether a container is not the one any more whose record was read before: it is gone, or another has its name. */
export async function isRemoved(client: NamespaceClient, record: Container): Promise<boolean> {
  const now = await findContainer(client, record.id);
  if (now === undefined) return true;
  return (
    now.createdAt?.seconds !== record.createdAt?.seconds || now.createdAt?.nanos !== record.createdAt?.nanos
  );
}

/**
 * After a task was started: a client that found the container without a task may have removed it in that time.
 * @throws FailedPrecondition where it has
 */
export async function assertNotRemoved(client: NamespaceClient, record: Container): Promise<void> {
  if (await isRemoved(client, record)) throw removedMeanwhile(record.id, undefined);
}

/**
 * Removes the task that was made while its container was being removed. containerd looks the container up before anything that
 * concerns a task, so that such a one can be neither used nor deleted: the record is there again for that moment.
 */
export async function removeOrphan(
  host: Pick<Host, 'containerd'>,
  namespace: string,
  record: Container,
): Promise<void> {
  const client = host.containerd.namespace(namespace);
  const { tasks } = await client.tasks.list({ filter: '' });
  if (!tasks.some(({ id }) => id === record.id)) return;
  try {
    await client.containers.create({ container: record });
  } catch (error) {
    if (error instanceof AlreadyExists) return; // a new one of that name, which has the task
    throw error;
  }
  try {
    await removeTask(host, namespace, record.id);
  } finally {
    await client.containers.delete({ id: record.id });
  }
}

export function removedMeanwhile(id: string, cause: unknown): FailedPrecondition {
  return new FailedPrecondition(`container ${id} was removed by somebody else while it was being restored`, {
    subject: id,
    reason: 'container-removed',
    cause,
    remedy: 'the checkpoint is kept: run the same command again',
  });
}
