import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../src/errors.ts';
import type { DeleteResponse } from '../../src/proto/gen/containerd/task.ts';
import { wallTime } from '../../src/sys/clock.ts';
import type { Exec } from '../../src/sys/command.ts';
import { isAlive } from '../../src/sys/process.ts';
import { readRecord, type TaskRecord } from '../container/record.ts';
import { exitsLeft } from '../guard/exit-journal.ts';
import type { Paths } from '../paths.ts';
import { asPrintfArgument } from './answer.ts';
import { clearTask } from './clear.ts';
import { withClearLock } from './clear-lock.ts';

const SIGKILL = 9;
/** More would only wait for the same kernel locks, and the OCI runtime's start is what takes the time. */
const AT_ONCE = 4;

/** Whether the shim that kept the record has ended. Of a record that does not name one nobody knows. */
export function isOrphan({ shim }: TaskRecord): boolean {
  return shim !== undefined && !isAlive(shim.pid, shim.startTime);
}

/**
 * A task's record with how its process has ended, where its guard had heard of that and nobody has written it there: no worker was
 * there, and then the guard was killed as well.
 */
export function withLastExit(paths: Paths, record: TaskRecord): TaskRecord {
  const { shim, pid, startTime, exit } = record;
  if (shim === undefined || exit !== undefined || pid === 0) return record;
  const left = exitsLeft(paths.exits, shim).find((one) => one.pid === pid && one.startTime === startTime);
  if (left === undefined) return record;
  const { status, seconds, nanos } = left;
  return { ...record, exit: { status, seconds, nanos } };
}

/** The answer of `delete` for a task whose shim is dead: what it said of the task's end, or that the task is killed now. */
export function lastAnswer(record: TaskRecord | undefined): DeleteResponse {
  const exit = record?.exit;
  return {
    pid: record?.pid ?? 0,
    exitStatus: exit?.status ?? 128 + SIGKILL,
    exitedAt: exit === undefined ? wallTime() : { seconds: BigInt(exit.seconds), nanos: exit.nanos },
  };
}

/**
 * Clears away every task of the namespace whose shim is dead. containerd asks for each of them with a process of its own, all
 * at once, and gives each five seconds: so one does it for all, and leaves the answers where the launcher reads them.
 * First of all come those that serve when the time is over (`dead`); what is cleared away then has `deleted`.
 * What fails stays as it is, with the reason beside it, for whoever comes next. The caller holds the clear lock.
 */
export async function clearDead(paths: Paths, namespace: string, exec: Exec): Promise<void> {
  const dead = await findDead(paths, namespace);
  for (const { folder, record } of dead) leave(folder, 'dead', asPrintfArgument(lastAnswer(record)));
  const next = dead.values();
  const worker = async (): Promise<void> => {
    for (const { folder, record } of next) await clearOne(folder, record, exec).catch(() => undefined);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/**
 * Clears one task away, and leaves the answer; on failure the reason.
 * @throws what clearTask throws
 */
export async function clearOne(folder: string, record: TaskRecord, exec: Exec): Promise<void> {
  const warnings: string[] = [];
  try {
    await clearTask(record, exec, (text) => warnings.push(text));
  } catch (error) {
    leave(folder, 'warnings', [...warnings, `${record.id}: ${messageOf(error)}`].join('; '));
    throw error;
  }
  if (warnings.length > 0) leave(folder, 'warnings', warnings.join('; '));
  finish(folder, asPrintfArgument(lastAnswer(record)));
}

/** Leaves the answer, unless the launcher has made do with the one before, and takes away what tells of a task. */
export function finish(folder: string, answer: string): void {
  leave(folder, 'deleted', answer);
  for (const name of ['state.json', 'address', 'dead']) rmSync(join(folder, name), { force: true });
  if (existsSync(join(folder, 'told'))) rmSync(folder, { recursive: true, force: true });
}

/** Whether there are any: cheap, and without the lock. */
export async function hasDead(paths: Paths, namespace: string): Promise<boolean> {
  return (await findDead(paths, namespace)).length > 0;
}

/** What a Create finds of an earlier task of its name, whose shim died and whose clearing was cut off, goes first. */
export async function clearFormer(paths: Paths, namespace: string, id: string, exec: Exec): Promise<void> {
  const folder = paths.task(namespace, id);
  if (!existsSync(join(folder, 'state.json'))) return;
  await withClearLock(paths.clearLock(namespace), async () => {
    const record = await readRecord(folder);
    if (record !== undefined && isOrphan(record)) await clearOne(folder, withLastExit(paths, record), exec);
  });
}

async function findDead(
  paths: Paths,
  namespace: string,
): Promise<{ readonly folder: string; readonly record: TaskRecord }[]> {
  const ids = await readdir(paths.tasks(namespace)).catch(() => []);
  const found = await Promise.all(
    ids.map(async (id) => {
      const folder = join(paths.tasks(namespace), id);
      const record = await readRecord(folder).catch(() => undefined);
      return record !== undefined && isOrphan(record)
        ? [{ folder, record: withLastExit(paths, record) }]
        : [];
    }),
  );
  return found.flat();
}

/** Whole or not at all, as others read it meanwhile. */
function leave(folder: string, name: string, text: string): void {
  const path = join(folder, name);
  writeFileSync(`${path}.new`, `${text.replaceAll('\n', ' ')}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
