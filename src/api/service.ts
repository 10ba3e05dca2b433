import { realpath } from 'node:fs/promises';
import { clone } from '../checkpoint/clone.ts';
import type { Host, Report } from '../checkpoint/host.ts';
import type { CheckpointEntry } from '../checkpoint/entry.ts';
import { untilInstant, waitForStored } from '../checkpoint/storing.ts';
import { selectMembers } from '../checkpoint/members.ts';
import { removeCheckpoints } from '../checkpoint/remove.ts';
import { restore } from '../checkpoint/restore.ts';
import { run } from '../checkpoint/run.ts';
import { restoreSet } from '../checkpoint/restore-set.ts';
import type { ExecSessions } from '../checkpoint/sessions.ts';
import { takeOneOrPod, takeSet } from '../checkpoint/set.ts';
import { examine } from '../doctor/examine.ts';
import { FailedPrecondition, InvalidArgument, messageOf } from '../errors.ts';
import { inspect, list } from '../inventory/list.ts';
import { adopt, diskUsage } from '../inventory/disks.ts';
import { hostInfo } from '../inventory/info.ts';
import {
  type CheckpointRequest,
  type CheckpointUpdate,
  type CloneUpdate,
  type Progress,
  type RestoreSetUpdate,
  type RestoreUpdate,
  type RunUpdate,
  type StasisDefinition,
} from '../proto/gen/stasis/stasis.ts';
import { commit, version } from '../version.ts';
import {
  checkpointMessage,
  execSessionsOf,
  obstacleMessage,
  pagingOf,
  precopyOf,
  restoreFailure,
  restoreMessage,
} from './convert.ts';
import type { GrpcContext, GrpcHandlers } from './grpc-server.ts';
import { addressMetadata } from './metadata.ts';
import { explainNoRoom } from './no-room.ts';
import { Operations } from './operations.ts';
import { explainSilence } from './silent-shim.ts';
import { streaming, type Updates } from './updates.ts';

/** Handlers of stasis.v1: each call of the API in terms of the operations behind it. */
export function stasisService(host: Host): GrpcHandlers<typeof StasisDefinition> {
  const operations = new Operations();
  /** `what` and `subject`: what is made in the pool, for whom, of which namespace. */
  const operation = <T>(
    context: GrpcContext,
    [what, subject, namespace]: readonly [string, string, string],
    work: (updates: Updates<T>, signal: AbortSignal) => Promise<void>,
  ): AsyncIterable<T> =>
    streaming<T>(async (updates) => {
      using running = operations.begin(context);
      try {
        await work(updates, running.signal);
      } catch (error) {
        const told = explainNoRoom(error, what, subject);
        if (told === error) throw await silence(error, namespace);
        host.log.warn('no room in the pool', { for: what, error: messageOf(error) });
        throw told;
      }
    });
  const silence = (error: unknown, namespace: string): Promise<unknown> =>
    explainSilence(error, host.config.daemon.run_dir, namespace);
  const sessionsOf = ({ execSessions }: Pick<CheckpointRequest, 'execSessions'>): ExecSessions =>
    execSessionsOf(execSessions, host.config.checkpoint.exec_sessions);
  /** What of a request is to be brought together with the configuration. */
  const policies = (request: Pick<CheckpointRequest, 'execSessions' | 'precopy'>) => ({
    execSessions: sessionsOf(request),
    precopy: precopyOf(request.precopy, host.config.checkpoint),
  });
  return {
    checkpoint: (request, context) =>
      operation<CheckpointUpdate>(
        context,
        [`a checkpoint of ${request.container}`, request.container, request.namespace],
        async (updates, signal) => {
          await enter(host, context);
          const report = reporter<CheckpointUpdate>(updates, (update) => update);
          await taking(host, { ...request, signal }, updates, (options) =>
            takeOneOrPod(host, { ...request, ...options, ...policies(request) }, report),
          );
        },
      ),
    checkpointSet: (request, context) => {
      const subject = request.pod || [...request.containers, ...request.labels].join(', ');
      return operation<CheckpointUpdate>(
        context,
        [`a set of ${subject}`, subject, request.namespace],
        async (updates, signal) => {
          await enter(host, context);
          const report = reporter<CheckpointUpdate>(updates, (update) => update);
          const containers = await selectMembers(host, request, report);
          await taking(host, { ...request, signal }, updates, (options) =>
            takeSet(host, { ...request, containers, ...options, ...policies(request) }, report),
          );
        },
      );
    },
    restoreSet: (request, context) => {
      const subject = request.set || request.containers.join(', ');
      return operation<RestoreSetUpdate>(
        context,
        [`a restore of ${subject}`, subject, request.namespace],
        async (updates, signal) => {
          await enter(host, context);
          const tell = (update: RestoreSetUpdate['update']): void => updates.push({ update, warnings: [] });
          await restoreSet(
            host,
            { ...request, paging: pagingOf(request.paging), signal },
            {
              restored: (restored) => tell({ $case: 'result', value: restoreMessage(restored) }),
              failed: (...failure) => tell({ $case: 'failure', value: restoreFailure(...failure) }),
            },
            reporter<RestoreSetUpdate>(updates, (update) => update),
          );
        },
      );
    },
    wait: async (request, context) => {
      await enter(host, context);
      try {
        return { checkpoint: checkpointMessage(await waitForStored(host, request, context.signal)) };
      } catch (error) {
        throw explainNoRoom(error, `a checkpoint of ${request.container}`, request.container);
      }
    },
    restore: (request, context) =>
      operation<RestoreUpdate>(
        context,
        [`a restore of ${request.container}`, request.container, request.namespace],
        async (updates, signal) => {
          await enter(host, context);
          const report = reporter<RestoreUpdate>(updates, (update) => update);
          const paging = pagingOf(request.paging);
          const restored = await restore(host, { ...request, paging, signal }, report);
          updates.push({ update: { $case: 'result', value: restoreMessage(restored) }, warnings: [] });
        },
      ),
    clone: (request, context) =>
      operation<CloneUpdate>(
        context,
        [`clones of ${request.container}`, request.container, request.namespace],
        async (updates, signal) => {
          await enter(host, context);
          const report = reporter<CloneUpdate>(updates, (update) => update);
          await clone(
            host,
            {
              namespace: request.namespace,
              container: request.container,
              from: request.from,
              count: request.count === 0 ? 1 : request.count,
              pattern: request.name,
              requireMemory: request.requireMemory,
              paging: pagingOf(request.paging),
              signal,
            },
            {
              checkpoint: (entry) =>
                updates.push({
                  update: { $case: 'checkpoint', value: checkpointMessage(entry) },
                  warnings: [],
                }),
              clone: (restored) =>
                updates.push({ update: { $case: 'clone', value: restoreMessage(restored) }, warnings: [] }),
            },
            report,
          );
        },
      ),
    run: (request, context) =>
      operation<RunUpdate>(
        context,
        [`container ${request.id}`, request.id, request.namespace],
        async (updates, signal) => {
          await enter(host, context);
          const report = reporter<RunUpdate>(updates, (update) => update);
          const result = await run(host, { ...request, signal }, report);
          updates.push({ update: { $case: 'result', value: restoreMessage(result) }, warnings: [] });
        },
      ),
    list: async (request, context) => {
      await enter(host, context);
      return list(host, request);
    },
    inspect: async (request, context) => {
      await enter(host, context);
      return inspect(host, request);
    },
    remove: async ({ namespace, container, checkpoints }, context) => {
      if (checkpoints.length === 0) {
        throw new InvalidArgument('no checkpoint named', {
          subject: container,
          reason: 'no-name',
          remedy: `name those to remove: stasis ls ${container} shows them`,
        });
      }
      using running = operations.begin(context);
      await enter(host, context);
      const removed = await removeCheckpoints(host, namespace, container, checkpoints, running.signal);
      return {
        removed: removed.map(({ name, freedBytes, waitsFor }) => ({
          name,
          freedBytes: BigInt(freedBytes),
          waitsFor: [...waitsFor],
        })),
      };
    },
    info: async (_, context) => {
      await assertMeant(host, context);
      return hostInfo(host);
    },
    version: async () => ({ version, commit, node: process.versions.node }),
    adopt: async (request, context) => {
      await enter(host, context);
      return adopt(host, request);
    },
    diskUsage: async (request, context) => {
      await enter(host, context);
      return diskUsage(host, request);
    },
    cancel: async ({ operation: name }) => {
      operations.cancel(name);
      return {};
    },
    doctor: async ({ namespace, container }, context) => {
      await (container === '' ? assertMeant : enter)(host, context);
      try {
        return { obstacles: (await examine(host, namespace, container)).map(obstacleMessage) };
      } catch (error) {
        throw await silence(error, namespace);
      }
    },
  };
}

/** Takes checkpoints and answers them, when they are whole or (`noWait`) when nothing is left but to store them. */
async function taking(
  host: Host,
  request: { noWait: boolean; exit: boolean; signal: AbortSignal },
  updates: Updates<CheckpointUpdate>,
  take: Parameters<typeof untilInstant>[2],
): Promise<void> {
  const answer = (entry: CheckpointEntry, warnings: string[] = []): void => {
    const unstored = host.storing.find(entry.namespace, entry.container);
    const more = unstored?.entry.id === entry.id ? { unstored } : {};
    updates.push({ update: { $case: 'checkpoint', value: checkpointMessage(entry, more) }, warnings });
  };
  if (!request.noWait) {
    const { signal } = request;
    for (const entry of await take({ signal, atInstant: () => undefined })) answer(entry);
    return;
  }
  for (const entry of await untilInstant(host, request, take)) {
    const { memoryError, container } = entry;
    answer(entry, memoryError === '' ? [] : [`${container}: memory was not dumped: ${memoryError}`]);
  }
}

/** Before anything else: the client means this stasisd's containerd, and that is known. */
async function enter(host: Host, context: GrpcContext): Promise<void> {
  await assertMeant(host, context);
  await host.identify();
}

/** @throws FailedPrecondition where the client names another containerd than the one that this stasisd serves */
async function assertMeant(host: Host, context: GrpcContext): Promise<void> {
  const meant = context.metadata.get(addressMetadata);
  if (meant !== undefined && !(await samePath(meant, host.containerd.address))) {
    throw new FailedPrecondition(
      `this stasisd serves the containerd at ${host.containerd.address}, not ${meant}`,
      {
        subject: meant,
        reason: 'other-containerd',
        remedy: 'name the stasisd of that containerd with --socket or STASIS_ADDRESS',
      },
    );
  }
}

async function samePath(a: string, b: string): Promise<boolean> {
  const real = (address: string): Promise<string> => {
    const path = address.replace(/^unix:\/\//, '');
    return realpath(path).catch(() => path);
  };
  return (await real(a)) === (await real(b));
}

interface ProgressUpdate {
  update: { $case: 'progress'; value: Progress } | undefined;
  warnings: string[];
}

/** Milliseconds between two updates of one phase: more is not seen, and each takes a while at both ends. */
const PROGRESS_MS = 100;

/** What an operation reports, as updates of its stream. */
function reporter<T>(updates: Updates<T>, as: (update: ProgressUpdate) => T): Report {
  let last = { phase: '', at: 0 };
  return {
    phase: (phase, done = 0, total = 0) => {
      const now = performance.now();
      if (phase === last.phase && now - last.at < PROGRESS_MS) return;
      last = { phase, at: now };
      updates.push(
        as({
          update: { $case: 'progress', value: { phase, doneBytes: BigInt(done), totalBytes: BigInt(total) } },
          warnings: [],
        }),
      );
    },
    warn: (message) => updates.push(as({ update: undefined, warnings: [message] })),
  };
}
