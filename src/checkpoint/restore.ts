import { findContainer, findTask, type NamespaceClient } from '../containerd/client.ts';
import { FailedPrecondition } from '../errors.ts';
import { findCheckpoint } from './find.ts';
import type { CheckpointEntry } from './entry.ts';
import { createFromCheckpoint, nameTaken, type NewContainer } from './create.ts';
import { type Host, lockKey, type Report } from './host.ts';
import { isLazy, type Paging } from './paging.ts';
import type { OpenMemory } from './memory-store.ts';
import { openCheckpoint } from './open.ts';
import { validateContainerId, validateNamespace } from './names.ts';
import { assertNoPodAround, inPodOfNow, type RewindPlace } from './pod.ts';
import { rewind } from './rewind/rewind.ts';
import type { RewindTimes } from './rewind/rewinding.ts';

export interface RestoreRequest {
  readonly namespace: string;
  readonly container: string;
  /** Empty: the latest. */
  readonly checkpoint: string;
  /** Empty: in place. */
  readonly as: string;
  readonly requireMemory: boolean;
  readonly paging: Paging;
  readonly signal: AbortSignal;
}

export interface Restored {
  readonly container: string;
  readonly checkpoint: string;
  readonly pid: number;
  readonly memory: boolean;
  /** The memory is brought in while it runs. */
  readonly lazy: boolean;
  readonly totalNs: number;
  readonly stopNs: number;
  readonly diskNs: number;
  readonly createNs: number;
  readonly startNs: number;
}

/**
 * Brings a container back to a checkpoint, in place or under a new name. A failure leaves everything as it
 * was: the running container too, which is brought back from an image made just before it was stopped. So does the signal,
 * until the restored task runs.
 */
export async function restore(host: Host, request: RestoreRequest, report: Report): Promise<Restored> {
  validateNamespace(request.namespace);
  validateContainerId(request.container);
  const target = request.as === '' ? request.container : request.as;
  validateContainerId(target);
  const keys = [lockKey(request.namespace, request.container), lockKey(request.namespace, target)];
  return host.locks.run(
    keys,
    async () => {
      return restoreLocked(host, request, report);
    },
    request.signal,
  );
}

/**
 * As `restore`, for a caller that holds the locks.
 * @param place its part in bringing several back as one
 */
export async function restoreLocked(
  host: Host,
  request: RestoreRequest,
  report: Report,
  place?: RewindPlace,
): Promise<Restored> {
  const started = process.hrtime.bigint();
  const { namespace, container, signal } = request;
  const target = request.as === '' ? container : request.as;
  const client = host.containerd.namespace(namespace);
  const entry = await findCheckpoint(host, client, container, request.checkpoint);
  if (request.requireMemory) assertMemory(entry);
  return host.catalog.reading(entry, async () => {
    const opened = openCheckpoint(host, entry);
    try {
      const found = [findContainer(client, target), findTask(client, target)] as const;
      const [read, record, task] = await Promise.all([opened, ...found]);
      signal.throwIfAborted();
      warnOfNoMemory(entry, report);
      if (request.as !== '' && record !== undefined) throw nameTaken(request.as);
      if (record !== undefined) await assertNoPodAround(client, record, entry);
      const memory = await inPod(client, read);
      const lazy = await isLazy(host, record ?? memory.record.container, entry, request.paging);
      const common = { namespace, entry, memory, lazy, signal, ...(place === undefined ? {} : { place }) };
      const done =
        record === undefined
          ? await restoreNew(host, { ...common, id: target }, report)
          : await rewind(host, { ...common, record, task }, report);
      return {
        container: target,
        checkpoint: entry.name,
        memory: entry.memory === 'image',
        lazy,
        totalNs: Number(process.hrtime.bigint() - started),
        ...done,
      };
    } finally {
      host.later(
        'close a memory image',
        opened.then(
          (memory) => memory.close(),
          () => undefined,
        ),
      );
    }
  });
}

/** What was read of a checkpoint, for the pod of the container as it now is. */
async function inPod(client: NamespaceClient, memory: OpenMemory): Promise<OpenMemory> {
  const container = await inPodOfNow(client, memory.record.container);
  if (container === memory.record.container) return memory;
  return {
    ...memory,
    record: { ...memory.record, container },
    hold: () => memory.hold(),
    close: async () => memory.close(),
  };
}

/** @throws FailedPrecondition where the checkpoint has no memory, for those who insist on it */
export function assertMemory(entry: CheckpointEntry): void {
  if (entry.memory === 'image') return;
  throw new FailedPrecondition(
    `checkpoint ${entry.name} of ${entry.container} holds no memory${whyNone(entry)}`,
    {
      subject: `${entry.container}@${entry.name}`,
      reason: 'no-memory-image',
      remedy: "without --require-memory the process is started anew on the checkpoint's disk",
    },
  );
}

/** Says of a checkpoint without memory what its restore will be. */
export function warnOfNoMemory(entry: CheckpointEntry, report: Report): void {
  if (entry.memory === 'image') return;
  report.warn(
    `checkpoint ${entry.name} holds no memory${whyNone(entry)}: the process starts anew on its disk`,
  );
}

function whyNone({ memory, memoryError }: CheckpointEntry): string {
  const why = memory === 'external' ? 'that was left to the client that took it' : memoryError;
  return why === '' ? '' : ` (${why})`;
}

async function restoreNew(
  host: Host,
  { place, ...options }: Parameters<typeof createFromCheckpoint>[1] & { readonly place?: RewindPlace },
  report: Report,
): Promise<RewindTimes> {
  await place?.stopped();
  report.phase('cloning the disk and restoring memory');
  const make = async (): Promise<NewContainer> => createFromCheckpoint(host, options, report);
  const made = await (place?.inTurn(make) ?? make());
  try {
    await place?.started();
  } catch (error) {
    await made.undo();
    throw error;
  }
  return { stopNs: 0, diskNs: made.diskNs, ...made.task };
}
