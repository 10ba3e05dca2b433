import { Code, codeOf, FailedPrecondition } from '../errors.ts';
import { HasClones } from '../zfs/errors.ts';
import type { CheckpointEntry } from './entry.ts';
import { removedPrefix } from './entry.ts';
import { type Host, lockKey } from './host.ts';
import { validateContainerId, validateNamespace } from './names.ts';

export interface Removed {
  readonly name: string;
  /** Containers whose disks stand on it: the data goes with the last of them. */
  readonly waitsFor: readonly string[];
}

/** Removes checkpoints by name; all names are checked before the first is removed. @throws NotFound, FailedPrecondition */
export async function removeCheckpoints(
  host: Host,
  namespace: string,
  container: string,
  names: readonly string[],
): Promise<Removed[]> {
  validateNamespace(namespace);
  validateContainerId(container);
  return host.locks.run(lockKey(namespace, container), async () => {
    const entries = [...new Set(names)].map((name) => host.catalog.resolve(namespace, container, name));
    for (const entry of entries) assertNotRead(host, entry);
    const removed: Removed[] = [];
    for (const entry of entries) removed.push(await removeOne(host, entry));
    return removed;
  });
}

function assertNotRead(host: Host, entry: CheckpointEntry): void {
  if (!host.catalog.isBeingRead(entry)) return;
  throw new FailedPrecondition(`checkpoint ${entry.name} of ${entry.container} is being restored`, {
    subject: `${entry.container}@${entry.name}`,
    reason: 'checkpoint-in-use',
    remedy: 'try again when the restore has ended',
  });
}

/** The memory half goes first: from then on what is left counts as removed, and a sweep finishes it. */
async function removeOne(host: Host, entry: CheckpointEntry): Promise<Removed> {
  const dataset = entry.snapshot.slice(0, entry.snapshot.indexOf('@'));
  const waitsFor = host.store.clonesOf(entry.snapshot);
  if (entry.memorySnapshot !== undefined) await destroySnapshot(host, entry.memorySnapshot, entry.id);
  host.catalog.delete(entry);
  if (entry.snapshot !== entry.memorySnapshot) await destroySnapshot(host, entry.snapshot, entry.id);
  await host.store.forgetCheckpoint(dataset, entry.name);
  return { name: entry.name, waitsFor };
}

/** A snapshot that clones stand on gets out of the way of new names, and goes with its last clone. */
async function destroySnapshot(host: Host, snapshot: string, id: string): Promise<void> {
  try {
    await host.zfs.destroy(snapshot);
  } catch (error) {
    if (codeOf(error) === Code.NotFound) return;
    if (!(error instanceof HasClones)) throw error;
    const aside = `${snapshot.slice(0, snapshot.indexOf('@'))}@${removedPrefix}${id}`;
    await host.zfs.rename(snapshot, aside);
    await host.zfs.destroyIdempotent(aside, { defer: true });
  }
}
