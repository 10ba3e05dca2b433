import type { CheckpointEntry } from '../checkpoint/entry.ts';
import { explainNoRoom } from './no-room.ts';
import type { Unstored } from '../checkpoint/storing.ts';
import type { Restored } from '../checkpoint/restore.ts';
import type { Config } from '../config/config.ts';
import { codeOf, InvalidArgument, messageOf, StasisError } from '../errors.ts';
import type { Paging } from '../checkpoint/paging.ts';
import type { Precopy } from '../checkpoint/precopy.ts';
import type { ExecSessions } from '../checkpoint/sessions.ts';
import type { Obstacle } from '../doctor/obstacle.ts';
import type { WallTime } from '../sys/clock.ts';
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import {
  type Checkpoint,
  DiskKind,
  type AdoptFailure,
  type ErrorInfo,
  ExecSessions as ExecSessionsKind,
  MemoryKind,
  type Obstacle as ObstacleMessage,
  type Precopy as PrecopyMessage,
  type RestoreFailure,
  Paging as PagingKind,
  type RestoreResult,
  Severity,
} from '../proto/gen/stasis/stasis.ts';

const memoryKinds = {
  none: MemoryKind.MEMORY_NONE,
  image: MemoryKind.MEMORY_IMAGE,
  external: MemoryKind.MEMORY_EXTERNAL,
} as const;

const diskKinds = { snapshot: DiskKind.DISK_SNAPSHOT, diff: DiskKind.DISK_DIFF } as const;

export function timestamp(ns: bigint): Timestamp {
  return { seconds: ns / 1_000_000_000n, nanos: Number(ns % 1_000_000_000n) };
}

export function wallTimestamp(time: WallTime | undefined): Timestamp | undefined {
  return time === undefined ? undefined : { seconds: time.seconds, nanos: time.nanos };
}

/** A checkpoint as the API shows it. */
export function checkpointMessage(
  entry: CheckpointEntry,
  more: { uniqueBytes?: number; origin?: string; unstored?: Unstored } = {},
): Checkpoint {
  const { timings: t } = entry;
  const ns = (value: number): bigint => BigInt(Math.round(value));
  return {
    id: entry.id,
    namespace: entry.namespace,
    container: entry.container,
    name: entry.name,
    createdAt: timestamp(entry.createdNs),
    memory: memoryKinds[entry.memory],
    disk: diskKinds[entry.disk],
    snapshot: entry.snapshot,
    memoryBytes: BigInt(entry.memoryBytes),
    uniqueBytes: BigInt(more.uniqueBytes ?? 0),
    timings: {
      frozenNs: ns(t.frozenNs),
      freezeNs: ns(t.freezeNs),
      dumpNs: ns(t.dumpNs),
      syncNs: ns(t.syncNs),
      snapshotNs: ns(t.snapshotNs),
      storeNs: ns(t.storeNs),
      totalNs: ns(t.totalNs),
    },
    image: entry.image,
    runtime: entry.runtime,
    origin: more.origin ?? '',
    memoryError: entry.memoryError,
    writtenBytes: BigInt(entry.writtenBytes ?? -1),
    unchangedSince: entry.unchangedSince?.name ?? '',
    setId: entry.set,
    storing: more.unstored !== undefined && more.unstored.error === undefined,
    storeError: more.unstored?.error === undefined ? '' : storeError(more.unstored),
  };
}

/** Why it could not be stored, in words that name no dataset. */
function storeError({ entry, error }: Unstored): string {
  return messageOf(explainNoRoom(error, `a checkpoint of ${entry.container}`, entry.container));
}

export function restoreMessage(restored: Restored): RestoreResult {
  const ns = (value: number): bigint => BigInt(Math.round(value));
  return {
    container: restored.container,
    checkpoint: restored.checkpoint,
    pid: restored.pid,
    memory: restored.memory,
    lazy: restored.lazy,
    totalNs: ns(restored.totalNs),
    stopNs: ns(restored.stopNs),
    diskNs: ns(restored.diskNs),
    createNs: ns(restored.createNs),
    startNs: ns(restored.startNs),
  };
}

/** What an error of ours says beside its code and message. */
export function errorInfo(error: StasisError): ErrorInfo {
  return {
    reason: error.reason ?? '',
    subject: error.subject ?? '',
    cause: error.cause === undefined ? '' : messageOf(error.cause),
    remedy: error.remedy ?? '',
  };
}

export function restoreFailure(container: string, checkpoint: string, error: unknown): RestoreFailure {
  return {
    ...{ container, checkpoint, code: codeOf(error), message: messageOf(error) },
    info: error instanceof StasisError ? errorInfo(error) : undefined,
  };
}

export function adoptFailure(dataset: string, error: unknown): AdoptFailure {
  const info = error instanceof StasisError ? errorInfo(error) : undefined;
  return { dataset, code: codeOf(error), message: messageOf(error), info };
}

/** What a client that is newer asks for beyond these is left to us. */
export function pagingOf(kind: PagingKind): Paging {
  if (kind === PagingKind.PAGING_EAGER) return 'eager';
  return kind === PagingKind.PAGING_LAZY ? 'lazy' : 'auto';
}

/** What a client does not say, or that is newer, is as configured. */
export function execSessionsOf(kind: ExecSessionsKind, configured: ExecSessions): ExecSessions {
  if (kind === ExecSessionsKind.EXEC_SESSIONS_LEAVE) return 'leave';
  if (kind === ExecSessionsKind.EXEC_SESSIONS_REFUSE) return 'refuse';
  if (kind === ExecSessionsKind.EXEC_SESSIONS_WAIT) return 'wait';
  return kind === ExecSessionsKind.EXEC_SESSIONS_KILL ? 'kill' : configured;
}

/** What a client does not say is as configured. */
export function precopyOf(
  asked: PrecopyMessage | undefined,
  { precopy_rounds: rounds, precopy_goal: goal }: Config['checkpoint'],
): Precopy | undefined {
  if (asked === undefined) return undefined;
  if (asked.rounds > MOST_ROUNDS) {
    throw new InvalidArgument(`${asked.rounds} rounds are more than ${MOST_ROUNDS}`, {
      reason: 'usage',
      remedy: `give 1 to ${MOST_ROUNDS}`,
    });
  }
  return {
    rounds: asked.rounds || rounds,
    goalBytes: asked.goalBytes === undefined ? goal * 1024 * 1024 : Number(asked.goalBytes),
  };
}

/** As the configuration allows: each is a folder on the tmpfs, and one more whose pages may be searched. */
const MOST_ROUNDS = 16;

export function obstacleMessage(obstacle: Obstacle): ObstacleMessage {
  const severity = obstacle.severity === 'error' ? Severity.SEVERITY_ERROR : Severity.SEVERITY_WARNING;
  return { ...obstacle, severity };
}
