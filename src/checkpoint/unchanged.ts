// A checkpoint of a container that has not run since its last one: a second name for it, without a dump.
import { AlreadyExists } from '../errors.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import { syncfs } from '../sys/syncfs.ts';
import { identityOf, inBackground, nameSnapshot } from './begin.ts';
import { type CheckpointEntry, contentOf, diskProperties } from './entry.ts';
import { type Host, lockKey, snapshotterName } from './host.ts';
import { MemoryStore } from './memory-store.ts';
import { type CheckpointRecord, recordText } from './record.ts';
import { decodeSpec } from './spec.ts';
import { Steps } from './steps.ts';
import type { Taking } from './taking.ts';
import type { InstantResponse } from '../proto/gen/stasis/engine.ts';

/**
 * Gives the container's last checkpoint a second name where nothing has changed since: it is paused and has been all the
 * while, and its disk has nothing written. Both snapshots are made anew, of datasets that still hold what they held, so they
 * take no bytes, and each of the two checkpoints can be removed by itself.
 * @returns undefined where anything has changed or may have: then a dump is needed, and nothing was made
 */
export async function takeUnchanged(host: Host, taking: Taking): Promise<CheckpointEntry | undefined> {
  const { request, task, record } = taking;
  if (request.exit || request.diskOnly || task?.status !== Status.PAUSED) return undefined;
  const place = host.store.findContainer(request.namespace, record.snapshotKey);
  if (place === undefined || record.snapshotter !== snapshotterName) return undefined;
  const key = lockKey(request.namespace, request.container);
  const still = await host.standstill.glance(key, task.pid);
  if (still === undefined) return undefined;
  const all = host.catalog.of(request.namespace, request.container);
  const former = all.findLast((entry) => contentOf(entry) === still.content);
  const memory = MemoryStore.datasetOf(place.dataset);
  if (former === undefined || !isIn(former.snapshot, place.dataset)) return undefined;
  if (former.memorySnapshot === undefined || !isIn(former.memorySnapshot, memory)) return undefined;
  const head = inBackground(host.memory.headOf(place.dataset));
  const text = inBackground(comparable(taking));

  await using steps = new Steps(host.log);
  const { leaf, snapshot } = nameSnapshot(host, place.dataset, taking.name);
  const begin = process.hrtime.bigint();
  const identity = identityOf(taking);
  // What was written through a mapping is in the page cache alone.
  await syncfs(place.rootfs);
  const synced = process.hrtime.bigint();
  const ours = { made: true };
  steps.undo('destroy the disk snapshot', async () => {
    if (ours.made) await host.zfs.destroyIdempotent(snapshot);
  });
  try {
    await host.zfs.snapshot([snapshot], { properties: diskProperties(identity) });
  } catch (error) {
    ours.made = !(error instanceof AlreadyExists); // somebody else's, made by hand
    throw error;
  }
  const made = process.hrtime.bigint();
  // All of what proves that nothing has changed comes after the snapshot: what was noted then holds of that instant too.
  const [{ objects }, same, content] = await Promise.all([
    host.zfs.changes(former.snapshot, snapshot),
    text.then((record) => host.standstill.find(key, { pid: task.pid, record })),
    head,
  ]);
  if (objects.size > 0 || same !== still || content !== still.content) return undefined;
  request.signal.throwIfAborted();
  const end = process.hrtime.bigint();
  const entry: CheckpointEntry = {
    ...former,
    ...identity,
    snapshot,
    memorySnapshot: `${memory}@${leaf}`,
    writtenBytes: 0,
    unchangedSince: { id: contentOf(former), name: former.name },
    timings: {
      frozenNs: 0,
      freezeNs: 0,
      dumpNs: 0,
      syncNs: Number(synced - begin),
      snapshotNs: Number(made - synced),
      storeNs: Number(end - made),
      totalNs: Number(end - taking.started),
    },
  };
  await host.memory.commit(entry);
  steps.commit();
  host.store.noteCheckpoint(place.dataset, leaf, entry.id);
  host.catalog.add(entry);
  return entry;
}

/** Remembers a paused container as it is right after its dump, so that the next checkpoint may find it unchanged. */
export async function noteStandstill(
  host: Host,
  taking: Taking,
  entry: CheckpointEntry,
  instant: InstantResponse,
): Promise<void> {
  const { request, task, record } = taking;
  const key = lockKey(request.namespace, request.container);
  host.standstill.forget(key);
  const usable = entry.memory === 'image' && entry.disk === 'snapshot' && instant.wasPaused && !request.exit;
  if (!usable || task === undefined || sharesMemory(taking)) return;
  await host.standstill.note(
    key,
    { content: entry.id, pid: task.pid, record: await comparable({ ...taking, record }) },
    instant.cpuNs,
  );
}

/** Others than its own processes can reach its shared memory and semaphores: the host's, or a pod's. */
function sharesMemory({ record }: Taking): boolean {
  const namespaces = decodeSpec(record.spec, record.id).linux?.namespaces ?? [];
  return !namespaces.some(({ type, path }) => type === 'ipc' && (path ?? '') === '');
}

/** What a checkpoint keeps of the container beside its image, for comparison. */
async function comparable(taking: Pick<Taking, 'record' | 'origin' | 'task'>): Promise<string> {
  const record: CheckpointRecord = {
    version: 1,
    id: '',
    container: taking.record,
    ...(await taking.origin),
    terminal: taking.task?.terminal ?? false,
  };
  return recordText(record);
}

function isIn(snapshot: string, dataset: string): boolean {
  return snapshot.startsWith(`${dataset}@`);
}
