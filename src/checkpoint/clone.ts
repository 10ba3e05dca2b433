import { untilBack } from '../containerd/away.ts';
import { FailedPrecondition, InvalidArgument, messageOf, StasisError } from '../errors.ts';
import { assertFreeName, createFromCheckpoint, nameTaken, type NewContainer } from './create.ts';
import type { CheckpointEntry } from './entry.ts';
import { type Host, lockKey, type Report } from './host.ts';
import type { OpenMemory } from './memory-store.ts';
import { openCheckpoint } from './open.ts';
import { cloneNames, MAX_CLONES, validateContainerId, validateNamespace } from './names.ts';
import { findCheckpoint } from './find.ts';
import { removeCheckpoints } from './remove.ts';
import { assertMemory, warnOfNoMemory, type Restored } from './restore.ts';
import { assertLazyBefore, isLazy, type Paging } from './paging.ts';
import { takeLocked } from './take.ts';

/** Restores at once. More only wait for each other in the pool and on the processors. */
const PARALLEL = 4;

export interface CloneRequest {
  readonly namespace: string;
  readonly container: string;
  /** Empty: a checkpoint is taken now. */
  readonly from: string;
  readonly count: number;
  readonly pattern: string;
  /** Fail rather than start copies anew on the checkpoint's disk. */
  readonly requireMemory: boolean;
  readonly paging: Paging;
  readonly signal: AbortSignal;
}

export interface Cloned {
  readonly checkpoint: (entry: CheckpointEntry) => void;
  readonly clone: (restored: Restored) => void;
}

/** Makes running copies of a container from one checkpoint. All of them, or none: then its own checkpoint goes too. */
export async function clone(host: Host, request: CloneRequest, tell: Cloned, report: Report): Promise<void> {
  validateNamespace(request.namespace);
  validateContainerId(request.container);
  if (!Number.isInteger(request.count) || request.count < 1 || request.count > MAX_CLONES) {
    throw new InvalidArgument(`${request.count} is not a number of clones from 1 to ${MAX_CLONES}`, {
      subject: request.container,
      reason: 'bad-count',
    });
  }
  const { namespace, container } = request;
  const names = await freeNames(host, request);
  if (request.paging === 'lazy') await assertLazyBefore(host, namespace, container);
  const entry = await host.locks.run(
    lockKey(namespace, container),
    async () =>
      request.from === ''
        ? takeLocked(
            host,
            {
              ...{ ...request, name: '', exit: false, diskOnly: false },
              execSessions: host.config.checkpoint.exec_sessions,
            },
            report,
          ).catch((error: unknown) => {
            throw withItsCheckpoints(host, request, error);
          })
        : findCheckpoint(host, host.containerd.namespace(namespace), container, request.from),
    request.signal,
  );
  try {
    await cloneFrom(host, request, names, entry, tell, report);
  } catch (error) {
    if (request.from === '') await removeOwn(host, entry);
    throw error;
  }
}

/** What does not run can be cloned as it was at one of its checkpoints, where it has any: the error names the latest. */
function withItsCheckpoints(host: Host, { namespace, container }: CloneRequest, error: unknown): unknown {
  const latest = host.catalog.of(namespace, container).at(-1);
  if (!(error instanceof StasisError) || error.reason !== 'not-running' || latest === undefined) return error;
  return new FailedPrecondition(error.message, {
    subject: container,
    reason: 'not-running',
    cause: error,
    remedy: `start it, or clone it as it was: stasis clone ${container} --from ${latest.name}`,
  });
}

async function cloneFrom(
  host: Host,
  { namespace, paging, signal, requireMemory }: CloneRequest,
  names: string[],
  entry: CheckpointEntry,
  tell: Cloned,
  report: Report,
): Promise<void> {
  if (requireMemory) assertMemory(entry);
  if (entry.memory === 'image') await assertSafeForClones(host, entry);
  tell.checkpoint(entry);
  await host.catalog.reading(entry, async () => {
    const memory = await openCheckpoint(host, entry);
    try {
      warnOfNoMemory(entry, report);
      const lazy = await isLazy(host, memory.record.container, entry, paging);
      await cloneAll(host, { namespace, names, entry, memory, lazy, signal }, tell, report);
    } finally {
      host.later('close a memory image', memory.close());
    }
  });
}

/** The checkpoint that a clone took for itself. Somebody else may be restoring it by now: then it stays. */
async function removeOwn(host: Host, { namespace, container, name }: CheckpointEntry): Promise<void> {
  await removeCheckpoints(host, namespace, container, [name]).catch((error: unknown) => {
    host.log.warn('the checkpoint that a failed clone took stays', {
      container,
      name,
      error: messageOf(error),
    });
  });
}

/**
 * Names for the clones, found before a checkpoint is taken for them.
 * @throws AlreadyExists where the one name that the user gave is taken
 */
async function freeNames(host: Host, request: CloneRequest): Promise<string[]> {
  const { namespace, container, pattern, count } = request;
  const { containers } = await host.containerd.namespace(namespace).containers.list({ filters: [] });
  const known = new Set(containers.map((other) => other.id));
  const names = cloneNames(pattern, container, count, (name) => known.has(name));
  for (const name of names) if (known.has(name)) throw nameTaken(name);
  return names;
}

async function cloneAll(
  host: Host,
  work: {
    namespace: string;
    names: string[];
    entry: CheckpointEntry;
    memory: OpenMemory;
    lazy: boolean;
    signal: AbortSignal;
  },
  tell: Cloned,
  report: Report,
): Promise<void> {
  const { namespace, entry, memory, lazy, signal } = work;
  const made: NewContainer[] = [];
  const queue = [...work.names];
  let failure: unknown;
  const worker = async (): Promise<void> => {
    for (let id = queue.shift(); id !== undefined && failure === undefined; id = queue.shift()) {
      const name = id;
      try {
        signal.throwIfAborted();
        await host.locks.run(
          lockKey(namespace, name),
          async () => {
            const begin = process.hrtime.bigint();
            await assertFreeName(host.containerd.namespace(namespace), name);
            const container = await createFromCheckpoint(
              host,
              { namespace, id: name, entry, memory, lazy, signal },
              report,
            );
            made.push(container);
            tell.clone({
              container: name,
              checkpoint: entry.name,
              memory: entry.memory === 'image',
              lazy,
              totalNs: Number(process.hrtime.bigint() - begin),
              stopNs: 0,
              diskNs: container.diskNs,
              ...container.task,
            });
          },
          signal,
        );
      } catch (error) {
        failure ??= error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL, work.names.length) }, worker));
  if (failure === undefined) return;
  const undo = untilBack();
  for (const container of made) {
    await undo(() => container.undo()).catch((error: unknown) => {
      host.log.error('a clone could not be removed again', {
        container: container.container,
        error: messageOf(error),
      });
    });
  }
  throw failure instanceof Error ? failure : new Error(messageOf(failure));
}

/**
 * Refuses to make copies that would all draw the same random numbers: CRIU before 4.2 saves the kernel's
 * getrandom state of a process, so that every UUID and key of a clone repeats its source's.
 */
async function assertSafeForClones(host: Host, entry: CheckpointEntry): Promise<void> {
  const criu = await host.criu.get();
  if (criu.safeForClones) return;
  throw new FailedPrecondition(
    `clones of ${entry.container} would repeat its random numbers: CRIU ${criu.version} copies the state they come from`,
    {
      subject: entry.container,
      reason: 'criu-unsafe-for-clones',
      remedy: 'install CRIU 4.2 or newer (see stasis info), or bring back one copy with stasis restore --as',
    },
  );
}
