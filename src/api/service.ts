import { clone } from '../checkpoint/clone.ts';
import type { Host, Report } from '../checkpoint/host.ts';
import { removeCheckpoints } from '../checkpoint/remove.ts';
import { restore } from '../checkpoint/restore.ts';
import { run } from '../checkpoint/run.ts';
import { takeCheckpoint } from '../checkpoint/take.ts';
import { InvalidArgument } from '../errors.ts';
import { inspect, list } from '../inventory/list.ts';
import { adopt, diskUsage } from '../inventory/disks.ts';
import { hostInfo } from '../inventory/info.ts';
import {
  type CheckpointUpdate,
  type CloneUpdate,
  type Progress,
  type RestoreUpdate,
  type RunUpdate,
  type StasisDefinition,
} from '../proto/gen/stasis/stasis.ts';
import { commit, version } from '../version.ts';
import { checkpointMessage, restoreMessage } from './convert.ts';
import type { GrpcHandlers } from './grpc-server.ts';
import { streaming, type Updates } from './updates.ts';

/** Handlers of stasis.v1: each call of the API in terms of the operations behind it. */
export function stasisService(host: Host): GrpcHandlers<typeof StasisDefinition> {
  return {
    checkpoint: (request, { signal }) =>
      streaming<CheckpointUpdate>(async (updates) => {
        await host.identify();
        const report = reporter<CheckpointUpdate>(updates, (update) => update);
        const name = request.name;
        const entry = await takeCheckpoint(host, { ...request, name, signal }, report);
        updates.push({ update: { $case: 'checkpoint', value: checkpointMessage(entry) }, warnings: [] });
      }),
    restore: (request, { signal }) =>
      streaming<RestoreUpdate>(async (updates) => {
        await host.identify();
        const report = reporter<RestoreUpdate>(updates, (update) => update);
        const restored = await restore(host, { ...request, signal }, report);
        updates.push({ update: { $case: 'result', value: restoreMessage(restored) }, warnings: [] });
      }),
    clone: (request, { signal }) =>
      streaming<CloneUpdate>(async (updates) => {
        await host.identify();
        const report = reporter<CloneUpdate>(updates, (update) => update);
        await clone(
          host,
          {
            namespace: request.namespace,
            container: request.container,
            from: request.from,
            count: request.count === 0 ? 1 : request.count,
            pattern: request.name,
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
      }),
    run: (request, { signal }) =>
      streaming<RunUpdate>(async (updates) => {
        await host.identify();
        const report = reporter<RunUpdate>(updates, (update) => update);
        const result = await run(host, { ...request, signal }, report);
        updates.push({ update: { $case: 'result', value: restoreMessage(result) }, warnings: [] });
      }),
    list: async (request) => {
      await host.identify();
      return list(host, request);
    },
    inspect: async (request) => {
      await host.identify();
      return inspect(host, request);
    },
    remove: async ({ namespace, container, checkpoints }) => {
      if (checkpoints.length === 0) {
        throw new InvalidArgument('no checkpoint named', {
          subject: container,
          reason: 'no-name',
          remedy: `name those to remove: stasis ls ${container} shows them`,
        });
      }
      await host.identify();
      const removed = await removeCheckpoints(host, namespace, container, checkpoints);
      return {
        removed: removed.map(({ name, waitsFor }) => ({ name, freedBytes: 0n, waitsFor: [...waitsFor] })),
      };
    },
    info: () => hostInfo(host),
    version: async () => ({ version, commit, node: process.version }),
    adopt: async (request) => {
      await host.identify();
      return adopt(host, request);
    },
    diskUsage: async (request) => {
      await host.identify();
      return diskUsage(host, request);
    },
  };
}

interface ProgressUpdate {
  update: { $case: 'progress'; value: Progress } | undefined;
  warnings: string[];
}

/** What an operation reports, as updates of its stream. */
function reporter<T>(updates: Updates<T>, as: (update: ProgressUpdate) => T): Report {
  return {
    phase: (phase, done = 0, total = 0) =>
      updates.push(
        as({
          update: { $case: 'progress', value: { phase, doneBytes: BigInt(done), totalBytes: BigInt(total) } },
          warnings: [],
        }),
      ),
    warn: (message) => updates.push(as({ update: undefined, warnings: [message] })),
  };
}
