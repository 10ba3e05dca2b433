import { findContainer } from '../containerd/client.ts';
import { FailedPrecondition } from '../errors.ts';
import { originOf } from './begin.ts';
import type { CheckpointEntry } from './entry.ts';
import type { Host } from './host.ts';
import type { OpenMemory } from './memory-store.ts';
import { decodeSpec } from './spec.ts';

/**
 * Opens what a checkpoint keeps beside its disk, for a restore: see `ready`. One that a stock client took has nothing here but the disk: for it the
 * container as containerd now knows it stands in, without memory.
 * @throws FailedPrecondition where that container is gone
 */
export async function openCheckpoint(host: Host, entry: CheckpointEntry): Promise<OpenMemory> {
  if (entry.memorySnapshot !== undefined) return host.memory.begin(entry);
  const { id, name, namespace, container } = entry;
  const client = host.containerd.namespace(namespace);
  const record = await findContainer(client, container);
  if (record === undefined) {
    throw new FailedPrecondition(
      `checkpoint ${name} of ${container} is a disk alone, and what was run on it is not known any more: its memory was left to the client that took it, and the container is gone`,
      {
        subject: `${container}@${name}`,
        reason: 'no-memory-image',
        remedy: `restore it by the client that took it, or make a container ${container} of the same image first`,
      },
    );
  }
  const origin = await originOf(client, record);
  const terminal = decodeSpec(record.spec, container).process?.terminal ?? false;
  return {
    ...{ path: '', imageDir: '', clone: '', ready: Promise.resolve() },
    record: { ...origin, version: 1, id, container: record, terminal },
    hold: () => undefined,
    close: async () => undefined,
  };
}
