import type { NamespaceClient } from '../containerd/client.ts';
import { Code, codeOf } from '../errors.ts';

/** Of what is removed: that it is not there any more, or never was, is no error. */
export async function ignoreNotFound(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (codeOf(error) !== Code.NotFound) throw error;
  }
}

/** Removes a snapshot, where there is one. */
export async function removeSnapshot(
  client: NamespaceClient,
  snapshotter: string,
  key: string,
): Promise<void> {
  await ignoreNotFound(client.snapshots.remove({ snapshotter, key }));
}
