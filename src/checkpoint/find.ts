import { findContainer, type NamespaceClient } from '../containerd/client.ts';
import { Code, codeOf } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { CheckpointEntry } from './entry.ts';
import type { Host } from './host.ts';
import { missingContainer } from './missing.ts';

/**
 * A checkpoint by its name, the latest where that is empty.
 * @throws NotFound, which names the container where there is none such, neither in containerd nor in the pool
 */
export async function findCheckpoint(
  host: Pick<Host, 'catalog' | 'containerd'>,
  client: NamespaceClient,
  container: string,
  name: string,
): Promise<CheckpointEntry> {
  const { namespace } = client;
  if (host.catalog.of(namespace, container).length === 0 && !(await findContainer(client, container)))
    throw await missingContainer(host, namespace, container);
  return host.catalog.resolve(namespace, container, name);
}

/** Whether a container's snapshot is there: here, and in containerd's own records, from which it goes first. */
export async function hasDisk(host: Host, namespace: string, record: Container): Promise<boolean> {
  const { snapshotter, snapshotKey: key } = record;
  if (host.store.findContainer(namespace, key) === undefined) return false;
  try {
    await host.containerd.namespace(namespace).snapshots.stat({ snapshotter, key });
    return true;
  } catch (error) {
    if (codeOf(error) === Code.NotFound) return false;
    throw error;
  }
}
